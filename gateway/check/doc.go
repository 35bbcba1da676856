// Package check tells whether a configuration works against the live shards and
// trunks: it does what a call would do, step by step, and says for each step
// what to do when it fails.
package check
