package media

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"brewline/internal/tone"
	"brewline/media/codec"
	"brewline/media/transport"
)

// far is the other end of a leg on a real socket: it says one tone and listens
// for another.
func far(t *testing.T, wait *sync.WaitGroup, stop <-chan struct{}, k *talker, leg *transport.Phone, hearCodec string, rate, freq int) <-chan struct{} {
	t.Helper()
	s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	here := s.LocalAddr().(*net.UDPAddr).AddrPort()
	leg.SetRemote(here, here)
	c, _ := codec.ByName(hearCodec)
	c.Rate = rate
	dec, err := c.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	wait.Add(2)
	go func() {
		defer wait.Done()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		there := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(leg.Port())))
		for {
			select {
			case <-stop:
				s.Close()
				return
			case <-tick.C:
				s.WriteToUDP(k.packet(), there)
			}
		}
	}()
	go func() {
		defer wait.Done()
		defer dec.Close()
		b, pcm := make([]byte, 2000), make([]int16, 5760)
		listener := tone.NewDetector(freq, rate, 200*time.Millisecond, 0.7)
		for done := false; ; {
			n, err := s.Read(b)
			if err != nil {
				return
			}
			p, ok := parseRTP(b[:n])
			if !ok || p.pt >= 72 && p.pt <= 76 { // RTCP on the same port
				continue
			}
			if n, err = dec.Decode(pcm, p.payload); err != nil {
				continue
			}
			listener.Write(pcm[:n])
			if !done && listener.Present() {
				done = true
				close(heard)
			}
		}
	}()
	return heard
}

// One call on real sockets and in real time, run by workers.
func TestOnSockets(t *testing.T) {
	p := NewPacer(PacerOptions{})
	defer p.Close()
	open := func() *transport.Phone {
		l, err := transport.OpenPhone(transport.PhoneOptions{Bind: netip.MustParseAddr("127.0.0.1"), RTCPMux: true})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	phone, conf := open(), open()
	defer phone.Close()
	defer conf.Close()
	b := p.NewBridge(BridgeOptions{})
	defer b.Close()

	stop := make(chan struct{})
	var wait sync.WaitGroup
	defer wait.Wait()
	defer close(stop)
	caller := newTalker(t, "pcmu", 0, 1, 20)
	caller.pcm = sine(440, 8000, time.Minute)
	web := newTalker(t, "opus", testOpusPT, 2, 20)
	web.levelID = testLevel
	web.pcm = sine(1000, web.rate, time.Minute)
	atPhone := far(t, &wait, stop, caller, phone, "pcmu", 8000, 1000)
	atBridge := far(t, &wait, stop, web, conf, "opus", 48000, 440)
	if err := b.AttachPhone(PhoneLeg{Conn: phone, Codec: "pcmu", Send: true, Receive: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.AttachConference(ConferenceLeg{Conn: conf, OpusPT: testOpusPT, AudioLevelID: testLevel}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for name, heard := range map[string]<-chan struct{}{"phone": atPhone, "videobridge": atBridge} {
		select {
		case <-heard:
		case <-deadline:
			t.Fatalf("the tone is not heard at the %s: %+v", name, b.Stats())
		}
	}
}
