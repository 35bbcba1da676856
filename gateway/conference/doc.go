// Package conference is a call's conference leg: one XMPP session at one
// shard, an occupant in the room, the Jingle session with Jicofo and the
// ICE/DTLS/SRTP transport to the videobridge.
//
// A leg is replaced, never repaired: when its XMPP session is lost it ends with
// an error that says why, and the call starts another. What Jicofo does within
// the session (bridge moved, conference idle, focus gone and back) is followed
// here while the phone stays up.
package conference
