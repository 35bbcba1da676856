// Package xmpp is a client session with one XMPP server, and what Jitsi says
// over it: the conference request to Jicofo, rooms and lobbies, presence,
// mute, entity capabilities.
//
// A Session runs over BOSH (XEP-0124, XEP-0206), WebSocket (RFC 7395) or TCP
// with STARTTLS (RFC 6120), logs in with SASL and binds a resource. One
// goroutine reads; every handler is called on it and must neither block nor
// wait for a reply, since the reply would have to be read by that goroutine.
//
// Whatever other occupants of a room send is data to judge: a stanza that
// cannot be decoded is counted and answered, and never ends the session.
package xmpp
