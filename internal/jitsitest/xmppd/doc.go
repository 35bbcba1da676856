// Package xmppd is an XMPP server for tests: the Prosody of one simulated
// Jitsi shard.
//
// It speaks BOSH with the rules of Prosody's mod_bosh (XEP-0124, XEP-0206),
// WebSocket (RFC 7395), client TCP (RFC 6120) and the component protocol
// (XEP-0114), and keeps rooms (XEP-0045) with the additions that Jitsi's
// Prosody plugins make: lobby, restricted creation, hidden rooms, tenant
// subdomains, service discovery pushed at bind, AV moderation, room metadata
// and ending a conference. The focus attaches as a component.
//
// Like Prosody it handles one stanza at a time: a single lock guards all state,
// so everybody sees stanzas in one global order. Faults are injected on demand
// and drawn from a seed that is logged at start.
package xmppd
