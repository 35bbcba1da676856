// Package media is the audio of a call: it carries what the phone says to the
// videobridge as one Opus stream, and mixes the streams that come from the
// videobridge for the phone.
//
// A [Pacer] is a few workers that do everything per packet for many calls on
// a wheel of 10 ms slots. A [Bridge] is one call's audio and sits in the slots
// where its packet time puts it. Legs are attached to a Bridge and detached
// from it at any time, apart from each other; the media path takes the time as
// an argument and reads no clock, so that packets in give packets out.
//
// Sources: RTP RFC 3550, RFC 3551, RFC 7587; header extensions RFC 8285,
// RFC 6464; telephone-event RFC 4733; comfort noise RFC 3389.
package media
