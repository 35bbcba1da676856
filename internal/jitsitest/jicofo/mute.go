package jicofo

import (
	"encoding/json"
	"slices"
)

// Mute mutes or unmutes a participant, as if actor (a nick, may be empty) had
// asked for it.
func (j *Jicofo) Mute(room, nick, actor string, mute bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, p, err := j.findParticipant(room, nick)
	if err != nil {
		return err
	}
	j.mute(c, p, actor, mute, true)
	return nil
}

// SetModeration switches AV moderation of audio on or off in a room, as far
// as it is Jicofo's. (The messages about it are sent by a component of the
// XMPP server, which Jicofo obeys.)
func (j *Jicofo) SetModeration(room string, on bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, err := j.find(room)
	if err != nil {
		return err
	}
	j.moderate(c, on)
	return nil
}

// Approve lets a participant unmute under AV moderation.
func (j *Jicofo) Approve(room, nick string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, p, err := j.findParticipant(room, nick)
	if err != nil {
		return err
	}
	c.approved[p.nick] = true
	return nil
}

// mute sets a participant's force-mute at the bridge and, with tell, sends it
// the mute IQ.
func (j *Jicofo) mute(c *conference, p *participant, actor string, mute, tell bool) {
	if mute && j.trustedJigasi(p) && !slices.Contains(p.presence, featureAudioMute) && !p.has(featureAudioMute) {
		return // would not obey
	}
	p.forceMuted = mute
	if p.session != nil {
		_ = p.session.endpoint.SetForceMute(mute) // an expired endpoint is found out elsewhere
	}
	if !tell {
		return
	}
	x := el(nsAudioMute, "mute").text("false")
	if mute {
		x.text("true")
	}
	if actor != "" {
		x.Attrs = append(x.Attrs, attr{"actor", c.occupant(actor)})
	}
	j.request(c.focusJID(), c.occupant(p.nick), "set", x, j.o.ReplyTimeout, func(reply *element) {
		if reply.attr("type") != "result" && !p.gone {
			c.problem("%s did not acknowledge mute", p.nick)
		}
	})
}

// handleMute takes a participant's request to mute itself or another, or to
// unmute itself.
func (j *Jicofo) handleMute(c *conference, p *participant, iq, x *element) {
	mute := x.Text == "true"
	target := p
	if jid := x.attr("jid"); jid != "" {
		target = c.member(resourceOf(jid))
		if target == nil || j.roomKey(jid) != c.room {
			j.replyError(iq, "cancel", "item-not-found", "")
			return
		}
	}
	moderator := p.role == "moderator"
	switch {
	case target != p && (!mute || !moderator),
		!mute && c.moderated && !moderator && !c.approved[p.nick]:
		j.replyError(iq, "cancel", "not-allowed", "")
		return
	}
	j.reply(iq, nil)
	j.mute(c, target, p.nick, mute, target != p)
}

// moderate switches AV moderation: everybody but moderators is muted, with no
// actor named.
func (j *Jicofo) moderate(c *conference, on bool) {
	if c.moderated == on {
		return
	}
	c.moderated = on
	clear(c.approved)
	if !on {
		return
	}
	for _, p := range c.members {
		if p.role != "moderator" {
			j.mute(c, p, "", true, true)
		}
	}
}

// handleModeration takes a message of the av_moderation component.
func (j *Jicofo) handleModeration(text string) {
	var m struct {
		Type, Room, MediaType string
		Enabled               *bool
		Whitelists            map[string][]string
	}
	if json.Unmarshal([]byte(text), &m) != nil || m.Type != "av_moderation" {
		return
	}
	c := j.conferences[j.roomKey(m.Room)]
	if c == nil || m.MediaType != "audio" {
		return
	}
	if m.Enabled != nil {
		j.moderate(c, *m.Enabled)
	}
	if list, ok := m.Whitelists["audio"]; ok {
		clear(c.approved)
		for _, jid := range list {
			c.approved[resourceOf(jid)] = true
		}
	}
}
