// Package siptest is the other end of a phone call for tests and the demo: a
// phone that talks, listens and checks tones, with a small SIP stack of its
// own that shares no code with the product's.
package siptest
