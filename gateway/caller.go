package gateway

import (
	"strings"

	"brewline/config"
	"brewline/sip"
)

// anonymous is shown for a caller who wants to be nobody (RFC 3323 §4.1.1.3).
const anonymous = "Anonymous"

// callerName is what the conference sees of a caller: the name, else the
// number as far as the trunk's masks show it.
func callerName(t *config.Trunk, d *sip.Dialog) string {
	id := sip.Identity{Party: d.From()}
	if t.Trusted {
		id = d.Identity()
	}
	return shownName(t, id)
}

// nameOf is callerName of a call that takes another one's place.
func (g *Gateway) nameOf(d *sip.Dialog) string {
	t := g.cfg.Load().Trunk(d.Trunk())
	if t == nil {
		return ""
	}
	return callerName(t, d)
}

func shownName(t *config.Trunk, id sip.Identity) string {
	name, number := id.Display, config.BareNumber(id.User)
	if strings.EqualFold(id.Host, "anonymous.invalid") || id.NumberHidden && config.IsNumber(name) {
		name, number = "", ""
	}
	if id.NameHidden {
		name = ""
	}
	if id.NumberHidden {
		number = ""
	}
	switch {
	case name != "" && !config.IsNumber(name):
		return name
	case name != "":
		// A name that is a number, perhaps written in another way.
		if masked, ok := t.MaskNumber(name); ok {
			return masked
		}
		if masked, ok := t.MaskNumber(number); ok {
			return masked
		}
		return name
	case number != "":
		masked, _ := t.MaskNumber(number)
		return masked
	case id.NumberHidden, id.NameHidden, id.Host == "", strings.EqualFold(id.Host, "anonymous.invalid"):
		return anonymous
	}
	return id.Host
}

// calleeName is what the conference sees of a number that it dials. One that
// goes over no trunk, since it was refused, is masked by whichever masks it.
func calleeName(cfg *config.Config, t *config.Trunk, number string) string {
	masked, ok := t.MaskNumber(number)
	for i := 0; !ok && t.Name == "" && i < len(cfg.Trunks); i++ {
		masked, ok = cfg.Trunks[i].MaskNumber(number)
	}
	return masked
}
