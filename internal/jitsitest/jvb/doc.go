// Package jvb is a simulated Jitsi videobridge: a selective forwarding unit
// for audio with one UDP port, full ICE in the controlling role, DTLS in the
// server role and SRTP. It behaves towards its clients as the real bridge
// does, forwards only signalled SSRCs, counts what it sees so that tests can
// assert it, and fails on demand.
//
// A conference is a name given to [Bridge.Allocate]; everything one endpoint
// of a conference sends goes to all its other endpoints.
package jvb
