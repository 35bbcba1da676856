package xmpp

import "encoding/json"

// RoomMetadata is what Jitsi's room_metadata component says about a room.
type RoomMetadata struct {
	Room            JID
	StartAudioMuted bool
	LobbyEnabled    bool
}

// AVModeration is a message of Jitsi's av_moderation component about audio.
type AVModeration struct {
	Room JID
	// Enabled: moderation was switched on or off; nil if the message is not
	// about that.
	Enabled *bool
	// Approved: we may unmute. Removed: not any more.
	Approved, Removed bool
	Actor             JID
}

// fromComponent: occupants cannot write from a bare domain.
func (m *Message) fromComponent() bool {
	return m.From.Domain != "" && m.From.Local == "" && m.From.Resource == "" && len(m.JSON) > 0 && m.Type != "error"
}

// RoomMetadata reads the message as room metadata; ok is false if it is none.
func (m *Message) RoomMetadata() (md RoomMetadata, ok bool) {
	var w struct {
		Type     string `json:"type"`
		Metadata struct {
			StartMuted struct {
				Audio bool `json:"audio"`
			} `json:"startMuted"`
			LobbyEnabled bool `json:"lobbyEnabled"`
		} `json:"metadata"`
	}
	if !m.fromComponent() || json.Unmarshal(m.JSON, &w) != nil || w.Type != "room_metadata" {
		return md, false
	}
	return RoomMetadata{lenient(m.JSONRoom), w.Metadata.StartMuted.Audio, w.Metadata.LobbyEnabled}, true
}

// AVModeration reads the message as one about audio moderation; ok is false
// if it is none.
func (m *Message) AVModeration() (av AVModeration, ok bool) {
	var w struct {
		Type      string `json:"type"`
		Room      string `json:"room"`
		MediaType string `json:"mediaType"`
		Enabled   *bool  `json:"enabled"`
		Approved  bool   `json:"approved"`
		Removed   bool   `json:"removed"`
		Actor     string `json:"actor"`
	}
	if !m.fromComponent() || json.Unmarshal(m.JSON, &w) != nil || w.Type != "av_moderation" || w.MediaType != "audio" {
		return av, false
	}
	return AVModeration{lenient(w.Room), w.Enabled, w.Approved, w.Removed, lenient(w.Actor)}, true
}
