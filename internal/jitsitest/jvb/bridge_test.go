package jvb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) *Bridge {
	t.Helper()
	b, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("fault seed %d", b.Seed())
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestForwardsAudio(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		profiles []Profile
	}{
		{"gcm preferred", nil},
		{"cm preferred", []Profile{ProfileCM, ProfileGCM}},
		{"cm only", []Profile{ProfileCM}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, Options{Profiles: tt.profiles, IgnoreCandidates: true})
			// The levels have another id for each.
			alice, ea := join(t, b, "room", "alice", AllocOptions{AudioLevelID: 1, OpusPT: 111}, 1000)
			bob, eb := join(t, b, "room", "bob", AllocOptions{AudioLevelID: 7, OpusPT: 109}, 2000)
			carol, _ := join(t, b, "room", "carol", AllocOptions{}, 3000)
			other, _ := join(t, b, "elsewhere", "dave", AllocOptions{AudioLevelID: 1}, 4000)
			for i := range 20 {
				alice.sendRTP(packet(1000, uint16(65530+i), 111, 1, 0x80|30, fmt.Sprint("a", i)))
				bob.sendRTP(packet(2000, uint16(i), 109, 7, 40, fmt.Sprint("b", i)))
			}
			await(t, "packets", func() bool {
				return len(alice.received()) == 20 && len(bob.received()) == 20 && len(carol.received()) == 40
			})
			for i, p := range bob.received() {
				var v view
				if !v.parse(p, 7) || v.ssrc != 1000 || v.seq != uint16(65530+i) || v.pt != 111 {
					t.Fatalf("packet %d: %x", i, p)
				}
				if !v.hasLevel || v.level != 0x80|30 {
					t.Errorf("packet %d has no level 30 under id 7: %x", i, p)
				}
				if got := string(p[v.payload:]); got != fmt.Sprint("a", i) {
					t.Errorf("payload %q", got)
				}
				if strings.Contains(string(p[:v.payload]), "\xA0a") {
					t.Errorf("the mid was not stripped: %x", p)
				}
			}
			for _, p := range carol.received() {
				if p[0]&0x10 != 0 {
					t.Errorf("extension for a receiver that was offered none: %x", p)
				}
			}
			if n := len(other.received()); n != 0 {
				t.Errorf("%d packets leaked into another conference", n)
			}
			want := ProfileGCM
			if tt.profiles != nil {
				want = tt.profiles[0]
			}
			s := ea.Stats()
			if s.Profile != want || s.RTPFrom != 20 || s.RTPTo != 20 || s.LevelMissing != 0 || s.WrongPT != 0 || s.AuthErrors != 0 {
				t.Errorf("stats %+v", s)
			}
			if s := eb.Stats(); s.RTPTo != 20 || s.WrongPT != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestDropsWhatIsNotSignalled(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	alice, ea := join(t, b, "room", "alice", AllocOptions{AudioLevelID: 1, OpusPT: 111})
	bob, _ := join(t, b, "room", "bob", AllocOptions{AudioLevelID: 1})
	alice.sendRTP(packet(1, 1, 111, 1, 30, "early"))
	await(t, "the unsignalled packet", func() bool { return ea.Stats().Unsignalled == 1 })
	if err := ea.SetSources([]uint32{1}); err != nil {
		t.Fatal(err)
	}
	alice.sendRTP(packet(1, 2, 96, 0, 0, "late"))
	await(t, "the signalled packet", func() bool { return len(bob.received()) == 1 })
	if got := bob.received()[0]; !strings.HasSuffix(string(got), "late") {
		t.Errorf("got %x", got)
	}
	s := ea.Stats()
	if s.LevelMissing != 1 || s.WrongPT != 1 || len(s.SSRCs) != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestSilenceIsDroppedAndNumbersCloseUp(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	alice, ea := join(t, b, "room", "alice", AllocOptions{AudioLevelID: 1}, 1)
	bob, _ := join(t, b, "room", "bob", AllocOptions{AudioLevelID: 1})
	seq := uint16(65533)
	levels := []byte{20, 127, 127, 127, 127, 127, 127, 20, 20, 127, 20}
	for _, l := range levels {
		alice.sendRTP(packet(1, seq, 111, 1, l, "x"))
		seq++
	}
	await(t, "eight packets", func() bool { return len(bob.received()) == 8 && ea.Stats().RTPFrom == 11 })
	for i, p := range bob.received() {
		if got, want := binary.BigEndian.Uint16(p[2:]), uint16(65533)+uint16(i); got != want {
			t.Errorf("packet %d has number %d, want %d", i, got, want)
		}
	}
	if s := ea.Stats(); s.Silent != 3 {
		t.Errorf("%d dropped as silence", s.Silent)
	}
}

func TestForceMute(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	alice, ea := join(t, b, "room", "alice", AllocOptions{AudioLevelID: 1}, 1)
	bob, _ := join(t, b, "room", "bob", AllocOptions{AudioLevelID: 1})
	if err := ea.SetForceMute(true); err != nil {
		t.Fatal(err)
	}
	alice.sendRTP(packet(1, 1, 111, 1, 20, "muted"))
	alice.sendRTP(packet(1, 2, 111, 0, 0, "no level"))
	await(t, "the packet without level", func() bool { return len(bob.received()) == 1 })
	if s := ea.Stats(); s.Muted != 1 {
		t.Errorf("stats %+v", s)
	}
	if err := ea.SetForceMute(false); err != nil {
		t.Fatal(err)
	}
	alice.sendRTP(packet(1, 3, 111, 1, 20, "heard"))
	await(t, "the packet after unmuting", func() bool { return len(bob.received()) == 2 })
}

func TestReports(t *testing.T) {
	t.Parallel()
	b := start(t, Options{ReportInterval: 20 * time.Millisecond})
	alice, ea := join(t, b, "room", "alice", AllocOptions{AudioLevelID: 1}, 1)
	bob, _ := join(t, b, "room", "bob", AllocOptions{AudioLevelID: 1})
	sr := make([]byte, 52) // a sender report with one report block
	sr[0], sr[1] = 0x81, ptSR
	binary.BigEndian.PutUint16(sr[2:], 12)
	binary.BigEndian.PutUint32(sr[4:], 1)
	binary.BigEndian.PutUint64(sr[8:], 0x1122334455667788)
	binary.BigEndian.PutUint32(sr[28:], 99)
	for _, seq := range []uint16{1, 2, 3, 5} { // one of five is lost
		alice.sendRTP(packet(1, seq, 111, 1, 30, "x"))
	}
	await(t, "RTP", func() bool { return ea.Stats().RTPFrom == 4 })
	alice.sendRTCP(sr)
	alice.sendRTP(packet(1, 6, 111, 1, 30, "x"))
	await(t, "a receiver report with the sender report's time", func() bool {
		for _, p := range alice.reports() {
			if p[1] == ptRR && len(p) == 32 && u32(p[4:]) == b.ReportSSRC() && u32(p[8:]) == 1 &&
				u32(p[12:])&0xFFFFFF == 1 && u32(p[16:])&0xFFFF == 6 && u32(p[24:]) == 0x33445566 {
				return true
			}
		}
		return false
	})
	await(t, "the forwarded sender report", func() bool { return len(bob.reports()) > 0 })
	if p := bob.reports()[0]; p[0] != 0x80 || p[1] != ptSR || len(p) != 28 || u32(p[4:]) != 1 {
		t.Errorf("forwarded %x", p)
	}
	if s := ea.Stats(); s.RTCPFrom != 1 || s.SenderReports != 1 || s.LargestRTCPGap <= 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestLoudest(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Loudest: 1})
	loud, _ := join(t, b, "room", "loud", AllocOptions{AudioLevelID: 1}, 1)
	quiet, eq := join(t, b, "room", "quiet", AllocOptions{AudioLevelID: 1}, 2)
	ear, _ := join(t, b, "room", "ear", AllocOptions{AudioLevelID: 1}, 3)
	for i := range uint16(10) {
		loud.sendRTP(packet(1, i, 111, 1, 10, "loud"))
	}
	await(t, "the loud one", func() bool { return len(ear.received()) == 10 })
	quiet.sendRTP(packet(2, 0, 111, 1, 60, "quiet"))
	await(t, "the quiet one to be dropped", func() bool { return eq.Stats().Quiet == 1 })
	if len(ear.received()) != 10 {
		t.Error("the quiet one was forwarded")
	}
}

func TestWrongFingerprintIsRefused(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	e, err := b.Allocate("room", "mallory", AllocOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	r := c.remote()
	r.Fingerprint = strings.Repeat("AA:", 31) + "AA"
	if err := e.SetRemote(r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := c.connect(ctx, e); err == nil {
		t.Error("connected with a certificate that was not signalled")
	}
	await(t, "the bridge to refuse", func() bool { return e.Stats().Handshake != nil })
}

func TestNoCommonProfile(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Profiles: []Profile{ProfileGCM}})
	e, err := b.Allocate("room", "old", AllocOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	c.profiles = []dtls.SRTPProtectionProfile{dtls.SRTP_AES128_CM_HMAC_SHA1_80}
	if err := e.SetRemote(c.remote()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := c.connect(ctx, e); err == nil {
		t.Error("connected without a common profile")
	}
}

func TestUsesClientCandidates(t *testing.T) {
	t.Parallel()
	b := start(t, Options{CheckInterval: 20 * time.Millisecond})
	e, err := b.Allocate("room", "alice", AllocOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	r := c.remote()
	cands, err := c.agent.GetLocalCandidates()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range cands {
		r.Candidates = append(r.Candidates, Candidate{Component: 1, Protocol: "udp", IP: x.Address(), Port: x.Port(), Type: "host"})
	}
	r.Candidates = append(r.Candidates,
		Candidate{Component: 1, Protocol: "udp", IP: "x.local", Port: 9, Type: "host"},
		Candidate{Component: 1, Protocol: "tcp", IP: "127.0.0.1", Port: 9, Type: "host"})
	if err := e.SetRemote(r); err != nil {
		t.Fatal(err)
	}
	// The client knows no candidate of the bridge: it is found all the same.
	e.Candidates = nil
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := c.connect(ctx, e); err != nil {
		t.Fatal(err)
	}
}

func TestConsentActivityAndExpiry(t *testing.T) {
	t.Parallel()
	activity := make(chan bool, 10)
	b := start(t, Options{
		ConsentInterval: 30 * time.Millisecond, ConsentTimeout: time.Minute,
		InactiveAfter: 300 * time.Millisecond, FirstTransfer: 10 * time.Second, ExpireAfter: 600 * time.Millisecond,
		OnActivity: func(_ *Endpoint, active bool) { activity <- active },
	})
	c, e := join(t, b, "room", "alice", AllocOptions{}, 1)
	select { // answered consent checks keep it alive
	case <-activity:
		t.Fatal("inactive though it answers checks")
	case <-e.Expired():
		t.Fatal("expired though it answers checks")
	case <-time.After(700 * time.Millisecond):
	}
	c.agent.Close()
	if active := <-activity; active {
		t.Error("active")
	}
	<-e.Expired()
	if err := e.SetSources(nil); !errors.Is(err, ErrUnknownEndpoint) {
		t.Errorf("got %v", err)
	}
	if b.Endpoint("room", "alice") != nil {
		t.Error("still there")
	}
}

func TestConsentLost(t *testing.T) {
	t.Parallel()
	b := start(t, Options{ConsentInterval: 20 * time.Millisecond, ConsentTimeout: 200 * time.Millisecond})
	c, e := join(t, b, "room", "alice", AllocOptions{}, 1)
	c.agent.Close()
	<-e.Expired()
}

func TestCrash(t *testing.T) {
	t.Parallel()
	b := start(t, Options{ExpireAfter: 100 * time.Millisecond, InactiveAfter: 100 * time.Millisecond, ConsentInterval: 10 * time.Millisecond})
	alice, _ := join(t, b, "room", "alice", AllocOptions{}, 1)
	bob, eb := join(t, b, "room", "bob", AllocOptions{}, 2)
	alice.sendRTP(packet(1, 1, 111, 0, 0, "x"))
	await(t, "a packet", func() bool { return len(bob.received()) == 1 })
	b.Crash()
	if b.Up() {
		t.Error("up")
	}
	before := eb.Stats().RTPTo
	for i := range uint16(5) {
		alice.sendRTP(packet(1, 2+i, 111, 0, 0, "x"))
	}
	if _, err := b.Allocate("room", "carol", AllocOptions{}); !errors.Is(err, ErrDown) {
		t.Errorf("got %v", err)
	}
	time.Sleep(150 * time.Millisecond) // nothing must happen
	if got := eb.Stats().RTPTo; got != before || len(bob.received()) != 1 {
		t.Errorf("a dead bridge forwarded %d packets", got-before)
	}
}

func TestAllocateTwice(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	e, err := b.Allocate("room", "alice", AllocOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Allocate("room", "alice", AllocOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	e.Expire()
	e.Expire()
	if _, err := b.Allocate("room", "alice", AllocOptions{}); err != nil {
		t.Error(err)
	}
}

func TestSetRemoteRefuses(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	e, err := b.Allocate("room", "alice", AllocOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good := Remote{Ufrag: "abcd", Pwd: "p", FingerprintHash: "sha-256", Fingerprint: "AA"}
	for _, tt := range []struct {
		name   string
		change func(*Remote)
	}{
		{"no ufrag", func(r *Remote) { r.Ufrag = "" }},
		{"no pwd", func(r *Remote) { r.Pwd = "" }},
		{"no fingerprint", func(r *Remote) { r.Fingerprint = "" }},
		{"unknown hash", func(r *Remote) { r.FingerprintHash = "md5" }},
		{"passive", func(r *Remote) { r.Setup = "passive" }},
	} {
		r := good
		tt.change(&r)
		if e.SetRemote(r) == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
	if err := e.SetRemote(good); err != nil {
		t.Fatal(err)
	}
	if err := e.SetRemote(good); err != nil {
		t.Errorf("again: %v", err)
	}
	good.Ufrag = "other"
	if e.SetRemote(good) == nil {
		t.Error("other credentials accepted")
	}
}
