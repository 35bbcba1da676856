package jicofo

import (
	"slices"

	"brewline/internal/jitsitest/jvb"
)

// AddBridge makes a bridge available, and invites those who wait for one.
func (j *Jicofo) AddBridge(b *jvb.Bridge) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Contains(j.bridges, b) {
		j.bridges = append(j.bridges, b)
	}
	for _, c := range j.conferences {
		j.inviteAll(c)
	}
}

// RemoveBridge takes a bridge away, as when its health check fails: its
// sessions are moved to another one, or terminated until there is another.
func (j *Jicofo) RemoveBridge(b *jvb.Bridge) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bridges = slices.DeleteFunc(j.bridges, func(x *jvb.Bridge) bool { return x == b })
	for _, c := range j.conferences {
		delete(c.sessionIDs, b)
		var moved []*participant
		for _, p := range c.members {
			if p.session != nil && p.session.bridge == b {
				moved = append(moved, p)
			}
		}
		j.move(c, moved, j.o.Reinvite)
	}
}

// MoveRoom moves all sessions of a room to another bridge (or to the same one
// when there is no other), by the given method.
func (j *Jicofo) MoveRoom(room string, m ReinviteMethod) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, err := j.find(room)
	if err != nil {
		return err
	}
	var moved []*participant
	for _, p := range c.members {
		if p.session != nil {
			moved = append(moved, p)
		}
	}
	clear(c.sessionIDs) // bridge sessions are new
	j.move(c, moved, m)
	return nil
}

// Terminate sends a participant session-terminate with a reason and does not
// invite it again, until Invite.
func (j *Jicofo) Terminate(room, nick, condition, text string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, p, err := j.findParticipant(room, nick)
	if err != nil {
		return err
	}
	p.refused = true
	j.terminate(c, p, condition, text)
	return nil
}

// Invite invites a participant again that was given up.
func (j *Jicofo) Invite(room, nick string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, p, err := j.findParticipant(room, nick)
	if err != nil {
		return err
	}
	p.refused = false
	j.inviteAll(c)
	return nil
}

// choose lists the bridges to try: those up, the least loaded first, avoid
// last.
func (j *Jicofo) choose(c *conference, avoid *jvb.Bridge) []*jvb.Bridge {
	load := map[*jvb.Bridge]int{}
	var up []*jvb.Bridge
	for _, b := range j.bridges {
		if !b.Up() {
			continue
		}
		up = append(up, b)
		load[b] = len(b.Endpoints(""))
		// A conference stays on the bridge it is on.
		for _, p := range c.members {
			if p.session != nil && p.session.bridge == b {
				load[b] -= 1 << 20
				break
			}
		}
		if b == avoid {
			load[b] = 1 << 30
		}
	}
	slices.SortStableFunc(up, func(a, b *jvb.Bridge) int { return load[a] - load[b] })
	return up
}

// move gives participants new transports.
func (j *Jicofo) move(c *conference, ps []*participant, m ReinviteMethod) {
	if len(ps) == 0 {
		return
	}
	avoid := ps[0].session.bridge
	if m == ReplaceTransport {
		for _, p := range ps {
			j.replaceTransport(c, p, avoid)
		}
		j.updatePresence(c)
		return
	}
	for _, p := range ps {
		j.terminate(c, p, "success", "moving")
	}
	for _, p := range ps {
		switch {
		case m == TerminateOnly:
			p.refused = true
		case len(c.members) >= j.o.MinParticipants && !j.silent:
			j.inviteAvoiding(c, p, avoid)
		}
	}
	j.updatePresence(c)
}

// replaceTransport sends transport-replace: a new transport for the same
// session, whose sources stay.
func (j *Jicofo) replaceTransport(c *conference, p *participant, avoid *jvb.Bridge) {
	old := p.session
	old.endpoint.Expire()
	if !j.place(c, p, avoid) {
		j.terminate(c, p, "success", "moving")
		return
	}
	s := p.session
	old.stop()
	s.sid, s.acked, s.accepted, s.replacing, s.outbox = old.sid, old.acked, old.accepted, true, old.outbox
	if !j.setSources(c, p) {
		return
	}
	j.jingle(c, p, j.offer(c, p, "transport-replace"), func(reply *element) {
		if p.session != s {
			return
		}
		if reply.attr("type") == "error" { // Jicofo expires the channels
			c.problem("%s refused transport-replace", p.nick)
			p.refused = true
			j.terminate(c, p, "general-error", "jingle session failed")
		}
	})
}
