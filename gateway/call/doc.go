// Package call is one phone call into one conference: a phone leg, a conference
// leg that may be replaced, and the bridge that carries audio between them.
//
// The Call goroutine owns all state of the call and never blocks: every network
// step runs in a child and posts its result to the call's mailbox, tagged with
// the leg it belongs to; results of a replaced leg are dropped.
package call
