// Package sip is the gateway's SIP user agent (RFC 3261): listeners on UDP
// and TCP, transactions, dialogs with offer and answer, and SDP (RFC 4566,
// RFC 3264) as text and types.
//
// Messages and their parser are github.com/emiago/sipgo/sip. Transport and
// transactions are this package's own, because three things there have to be
// per user agent and exact: the timers (sipgo's are process-wide variables),
// the To-tag and Reason of a 487 (sipgo answers a CANCEL by itself with a tag
// of its own), and the refusal of strangers before anything is parsed or
// started for them.
//
// The owner of a call meets a [Dialog] in Options.OnInvite, in a goroutine of
// its own, and must end it with Answer or Reject. What happens to the dialog
// afterwards arrives through [DialogHandler].
package sip
