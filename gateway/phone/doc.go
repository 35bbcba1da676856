// Package phone is a call's phone leg: a SIP dialog, the session description
// negotiated in it (RFC 3264) and the RTP stream that follows from it.
package phone
