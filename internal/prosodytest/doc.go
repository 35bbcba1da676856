// Package prosodytest starts a real Prosody for a test: a child process with
// a configuration of its own, on free loopback ports.
package prosodytest
