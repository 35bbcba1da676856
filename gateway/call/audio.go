package call

import "brewline/media"

// legAudio is one conference leg's access to the call's audio; it implements
// conference.Audio. A leg that is only looking around keeps its transport until
// it is promoted.
type legAudio struct {
	bridge *media.Bridge
	seat[media.ConferenceLeg]
}

func (c *Call) newLegAudio() *legAudio {
	return &legAudio{c.bridge, seat[media.ConferenceLeg]{floor: &c.conferences}}
}

// Attach implements conference.Audio.
func (a *legAudio) Attach(l media.ConferenceLeg) error { return a.sit(l) }

// Detach implements conference.Audio.
func (a *legAudio) Detach(media.ConferenceLeg) { a.rise() }

// DropSource implements conference.Audio.
func (a *legAudio) DropSource(ssrc uint32) {
	a.floor.mu.Lock()
	defer a.floor.mu.Unlock()
	if a.attached {
		a.bridge.RemoveSource(ssrc)
	}
}

// sideAudio is one phone's access to the call's audio; it implements
// phone.Audio. A phone that is not current is attached when it becomes that.
type sideAudio struct {
	*media.Bridge
	seat[media.PhoneLeg]
}

func (c *Call) newSideAudio() *sideAudio {
	return &sideAudio{c.bridge, seat[media.PhoneLeg]{floor: &c.phones}}
}

// AttachPhone implements phone.Audio.
func (a *sideAudio) AttachPhone(l media.PhoneLeg) error { return a.sit(l) }

// UpdatePhone implements phone.Audio.
func (a *sideAudio) UpdatePhone(send, receive bool) {
	a.floor.mu.Lock()
	defer a.floor.mu.Unlock()
	if a.waiting != nil {
		a.waiting.Send, a.waiting.Receive = send, receive
	} else if a.attached {
		a.Bridge.UpdatePhone(send, receive)
	}
}

// DetachPhone implements phone.Audio.
func (a *sideAudio) DetachPhone() { a.rise() }
