package jicofo

// brewery is the room in which gateways wait for dial requests.
type brewery struct {
	room string
}

func (j *Jicofo) joinBrewery() {}

func (b *brewery) presence(nick string, e *element) {}

func (j *Jicofo) handleDial(iq, x *element) {
	j.replyError(iq, "cancel", "service-unavailable", "")
}
