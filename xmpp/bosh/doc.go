// Package bosh is the client side of BOSH: XMPP over HTTP (XEP-0124,
// XEP-0206), with the request id rules that Prosody applies.
package bosh
