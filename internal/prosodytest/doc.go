// Package prosodytest starts a real Prosody for a test: a child process with
// a configuration of its own, on loopback ports that were free.
//
// It serves an anonymous virtual host, a second one with accounts
// (internal_hashed), BOSH, WebSocket and c2s for both, a MUC that shows real
// JIDs as Jitsi's does, a second MUC for breweries, and a port for one
// external component (XEP-0114), such as a simulated Jicofo. mod_limits is
// not loaded.
package prosodytest
