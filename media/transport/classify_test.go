package transport

import (
	"bytes"
	"testing"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"
)

func TestClassify(t *testing.T) {
	binding := stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	tests := []struct {
		name string
		b    []byte
		want kind
	}{
		{"nothing", nil, kindUnknown},
		{"STUN", binding, kindSTUN},
		{"STUN without cookie", append([]byte{0, 1, 0, 0}, make([]byte, 16)...), kindUnknown},
		{"STUN cut", binding[:19], kindUnknown},
		{"ZRTP", []byte{16, 0}, kindUnknown},
		{"DTLS change cipher spec", []byte{20}, kindDTLS},
		{"DTLS handshake", []byte{22}, kindDTLS},
		{"DTLS last", []byte{63}, kindDTLS},
		{"TURN channel", []byte{64, 0}, kindUnknown},
		{"below RTP", []byte{127, 0}, kindUnknown},
		{"first RTP byte alone", []byte{128}, kindUnknown},
		{"RTP", []byte{128, 111}, kindRTP},
		{"RTP with marker", []byte{128, 128 | 111}, kindRTP},
		{"RTP with all flags", []byte{191, 0}, kindRTP},
		{"payload type 64 with marker", []byte{128, 192}, kindRTCP},
		{"SR", []byte{128, 200}, kindRTCP},
		{"last RTCP type", []byte{128, 223}, kindRTCP},
		{"payload type 96 with marker", []byte{128, 224}, kindRTP},
		{"above RTP", []byte{192, 0}, kindUnknown},
	}
	for _, tt := range tests {
		if got := classify(tt.b); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestValidRTP(t *testing.T) {
	plain := append([]byte{0x80, 0, 0, 1}, make([]byte, 8)...)
	with := func(first byte, rest ...byte) []byte {
		p := append(bytes.Clone(plain), rest...)
		p[0] = first
		return p
	}
	tests := []struct {
		name string
		b    []byte
		want bool
	}{
		{"empty", nil, false},
		{"cut", plain[:11], false},
		{"header alone", plain, true},
		{"payload", with(0x80, 1, 2, 3), true},
		{"version 1", with(0x40, 1), false},
		{"version 3", with(0xc0, 1), false},
		{"two CSRCs as Jigasi's", with(0x82, make([]byte, 8)...), true},
		{"CSRC missing", with(0x82, make([]byte, 7)...), false},
		{"extension", with(0x90, 0xbe, 0xde, 0, 1, 0x10, 42, 0, 0, 9), true},
		{"extension without length", with(0x90, 0xbe, 0xde, 0), false},
		{"extension too long", with(0x90, 0xbe, 0xde, 0, 2, 0x10, 42, 0, 0), false},
		{"extension of 256 KiB", with(0x90, 0xbe, 0xde, 0xff, 0xff, 1), false},
		{"padding", with(0xa0, 7, 0, 0, 3), true},
		{"padding only", with(0xa0, 0, 0, 3), true},
		{"padding 0", with(0xa0, 7, 0), false},
		{"padding past the header", with(0xa0, 0, 0, 4), false},
		{"padding without payload", with(0xa0), false},
	}
	for _, tt := range tests {
		if got := validRTP(tt.b); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestValidRTCP(t *testing.T) {
	marshal := func(p ...rtcp.Packet) []byte {
		b, err := rtcp.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sr := &rtcp.SenderReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 2}}}
	sdes := &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{Source: 1, Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "x"}}}}}
	compound := marshal(sr, sdes, &rtcp.Goodbye{Sources: []uint32{1}})
	long := marshal(sr)
	long[3]++
	tests := []struct {
		name string
		b    []byte
		want bool
	}{
		{"empty", nil, false},
		{"header alone", []byte{0x80, 201, 0, 0}, false},
		{"SR", marshal(sr), true},
		{"compound", compound, true},
		{"compound cut", compound[:len(compound)-1], false},
		{"too long", long, false},
		{"rest of three bytes", append(marshal(sr), 0x80, 203, 0), false},
		{"RTP behind", append(marshal(sr), 0x80, 111, 0, 0), false},
		{"version 1", []byte{0x40, 201, 0, 1, 0, 0, 0, 1}, false},
	}
	for _, tt := range tests {
		if got := validRTCP(tt.b); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Whatever passes the checks can be parsed, and nothing panics.
func FuzzClassify(f *testing.F) {
	f.Add([]byte{0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3})
	f.Add([]byte{0xa0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2})
	f.Add([]byte{0x91, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9, 0xbe, 0xde, 0, 1, 0x10, 42, 0, 0})
	f.Add([]byte{0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{22, 254, 253})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind := classify(b)
		if kind == kindSTUN != stun.IsMessage(b) && len(b) > 0 && b[0] < 4 {
			t.Errorf("STUN: %v", kind)
		}
		if kind == kindRTP && validRTP(b) {
			n, _ := rtpPayload(b)
			var h rtp.Header
			if m, err := h.Unmarshal(b); err == nil && m != n {
				t.Errorf("payload at %d, Pion says %d", n, m)
			}
			if b[0]&0x20 != 0 && n+int(b[len(b)-1]) > len(b) {
				t.Error("padding past the header")
			}
		}
		if kind == kindRTCP && validRTCP(b) {
			var h rtcp.Header
			if err := h.Unmarshal(b); err != nil {
				t.Errorf("Pion: %v", err)
			}
		}
	})
}

// No datagram upsets a connected leg, whoever sends it.
func FuzzConferenceReceive(f *testing.F) {
	f.Add([]byte{0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3})
	f.Add([]byte{0x80, 200, 0, 6, 0, 0, 0, 1})
	f.Add([]byte{0x90, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x1f, 42, 0, 0})
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200})
	f.Add([]byte{23, 254, 253})
	// Without goroutines of Pion's, which would make coverage a matter of luck.
	const profile = srtp.ProtectionProfileAeadAes128Gcm
	in, err := newInbound(profile, make([]byte, 16), make([]byte, 12))
	if err != nil {
		f.Fatal(err)
	}
	from := addr("127.0.0.1:10000")
	c := &Conference{ring: NewRing(), stun4: newConduit(nil, nil), dtls: newConduit(nil, nil)}
	c.pair.Store(&Pair{Remote: from})
	c.in.Store(in)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := c.Stats()
		c.receive(append(make([]byte, 0, MTU+1), b...), from)
		after := c.Stats()
		counted := func(s ConferenceStats) uint64 {
			return s.Invalid + s.Unauthentic + s.Replayed + s.TooManySources + s.Unread
		}
		switch classify(b) {
		case kindSTUN, kindDTLS:
		default:
			if counted(after) != counted(before)+1 {
				t.Errorf("%x: not counted", b)
			}
		}
	})
}

// No datagram upsets a phone leg.
func FuzzPhoneReceive(f *testing.F) {
	f.Add([]byte{0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3}, true)
	f.Add([]byte{0x80, 200, 0, 1, 0, 0, 0, 1}, false)
	p := openPhone(f, PhoneOptions{RTCPMux: true})
	remote := addr("127.0.0.1:4000")
	p.SetRemote(remote, remote)
	f.Fuzz(func(t *testing.T, b []byte, known bool) {
		from := remote
		if !known {
			from = addr("127.0.0.9:4000")
		}
		before := p.Stats()
		p.receive(b, from)
		after := p.Stats()
		in := after.RTPReceived + after.RTCPReceived - before.RTPReceived - before.RTCPReceived
		out := after.Invalid + after.Stranger + after.Full - before.Invalid - before.Stranger - before.Full
		if in+out != 1 {
			t.Errorf("%x: received %d, dropped %d", b, in, out)
		}
		if packet, ok := p.Ring().Peek(); ok {
			if packet.RTCP && !validRTCP(packet.Data) || !packet.RTCP && !validRTP(packet.Data) {
				t.Errorf("%x got through", packet.Data)
			}
			p.Ring().Release()
		}
	})
}
