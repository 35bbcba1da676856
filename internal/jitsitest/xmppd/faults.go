package xmppd

// Faults injects failures on demand.
type Faults struct{}
