package xmppd

import (
	"encoding/json"
	"fmt"
	"slices"
)

// mod_muc_lobby_rooms.

// passesLobby says whether a user needs no admission.
func (s *Server) passesLobby(j jid) bool {
	return slices.Contains(s.o.LobbyWhitelist, j.domain) || slices.Contains(s.o.LobbyWhitelist, j.bare().String())
}

// openLobby makes the room one for members, with a lobby room beside it. Who is
// inside stays: jitsi-meet makes them members first.
func (r *room) openLobby(actor string) {
	r.membersOnly = true
	for _, o := range r.byOrder() {
		if r.affiliation(o.jid) == "none" {
			r.aff[o.jid.bare().String()] = "member"
		}
	}
	if r.lobby == nil {
		r.lobby = r.m.s.services[r.m.s.o.Lobby].create(r.jid.local)
		r.lobby.main = r
	}
	r.metadata.set("lobbyEnabled", json.RawMessage("true"))
	r.broadcastMetadata()
	r.lobbyNotify(actor, "LOBBY-ENABLED", "true", "")
}

// closeLobby lets everybody in; who waits is sent to the conference.
func (r *room) closeLobby(actor string) {
	r.membersOnly, r.waitForHost = false, false
	if l := r.lobby; l != nil {
		r.lobby = nil
		l.destroy(r.jid.String(), "Lobby room closed.")
		l.main = nil
		l.drop()
	}
	r.metadata.set("lobbyEnabled", json.RawMessage("false"))
	r.broadcastMetadata()
	r.lobbyNotify(actor, "LOBBY-ENABLED", "false", "")
}

// lobbyError sends a joiner to the lobby.
func (r *room) lobbyError(e *element) *element {
	err := errorReply(e, "auth", "registration-required", "", "")
	x := err.child(nsClient, "error")
	x.set("code", "407")
	x.add(el(nsJitmeet, "lobbyroom").add(r.lobby.jid.String()))
	if r.waitForHost {
		x.add(el(nsJitmeet, "waiting-for-host"))
	}
	return err.add(el(nsClient, "lobbyroom").add(r.lobby.jid.String()), el(nsMUC, "x"))
}

// lobbyNotify is the message that shows in the conference what happens in the
// lobby; value is JSON.
func (r *room) lobbyNotify(actor, event, value, name string) {
	from := r.jid
	if actor != "" {
		from = r.jid.with(actor)
	}
	t := fmt.Sprintf(`{"type":"lobby-notify","event":%q,"value":%s`, event, value)
	if name != "" {
		n, _ := json.Marshal(name)
		t += `,"name":` + string(n)
	}
	r.broadcast(el(nsClient, "message", "type", "groupchat", "from", from.String()).add(
		el(nsJitmeet, "json-message").add(t + "}")))
}
