// Package transport carries the media of both legs of a call on UDP sockets
// of its own.
//
// [Phone] is plain RTP with symmetric latching. [Conference] is the transport
// to a videobridge: ICE (RFC 8445) in the controlled role, DTLS-SRTP (RFC
// 5763, RFC 5764) and SRTP (RFC 3711, RFC 7714) on one socket, told apart by
// first byte (RFC 7983). Both are a [Conn]: one goroutine per socket, blocked
// in read, checks each packet where it was read and leaves it in a [Ring] for
// the one consumer; sends go straight to the socket. Nothing is allocated per
// packet and nobody but the reader is woken by one.
//
// A phone leg has a goroutine per socket. A conference leg has eight: its
// reader, four of ICE (task loop, checks, one per address family) and three of
// DTLS; none of them but the reader runs for media.
//
// [Ports] hands out the UDP ports, whose number is limited by configuration.
package transport
