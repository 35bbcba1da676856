package config

import "strings"

// BareNumber drops a phone number's parameters and what people put between its
// digits (RFC 3966 §5.1.1). What is no number stays as it is.
func BareNumber(s string) string {
	if bare, ok := bareNumber(s); ok {
		return bare
	}
	return s
}

// IsNumber says whether s is a phone number, however it is written.
func IsNumber(s string) bool {
	_, ok := bareNumber(s)
	return ok
}

func bareNumber(s string) (string, bool) {
	s, _, _ = strings.Cut(s, ";")
	bare := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -./()\u00a0", r) {
			return -1
		}
		return r
	}, s)
	return bare, bare != "" && strings.Trim(bare, "+0123456789*#") == ""
}

// RoomFor is the room that rooms, or else did, has for a called number or user
// part; "": none.
func (t *Trunk) RoomFor(called string) string {
	number := BareNumber(called)
	for _, n := range []string{called, number} {
		if room := strings.TrimSpace(t.Rooms[n]); room != "" {
			return room
		}
	}
	for i := range t.DID {
		d := &t.DID[i]
		if at := d.re.FindStringSubmatchIndex(number); number != "" && at != nil {
			return strings.TrimSpace(string(d.re.ExpandString(nil, d.Room, number, at)))
		}
	}
	return ""
}

// MaskNumber is what the conference may see of a number by the first mask that
// matches it; false if none does.
func (t *Trunk) MaskNumber(number string) (string, bool) {
	bare := BareNumber(number)
	for i := range t.Mask {
		m := &t.Mask[i]
		if at := m.re.FindStringSubmatchIndex(bare); at != nil {
			return string(m.re.ExpandString(nil, m.Show, bare, at)), true
		}
	}
	return number, false
}
