package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
)

const (
	room       = "phonemeet"
	header     = "phoneMeet" // as the IPBX writes it
	aliceTone  = 440         // Hz, what the participant says
	callerTone = 1000        // Hz, what the phone says
	otherTone  = 700         // Hz, said in a room that must never be heard
	hostTone   = 520         // Hz, what the host of the meeting says that calls out
	calleeTone = 1300        // Hz, what the phone says that is called
	account    = "brewline"  // at every shard, for the brewery
	password   = "demo"
)

// stage is everything the demo sets up.
type stage struct {
	o        options
	began    time.Time
	dep      *jitsitest.Deployment
	alice    *jitsitest.Browser // in the caller's room
	stranger *jitsitest.Browser // in another room, on another shard
	home     string             // the shard of the caller's room
	gateway  *gateway
	phone    *siptest.Phone
	heard    []hearing
}

func setUp(ctx context.Context, o options) (*stage, error) {
	s := &stage{o: o, began: time.Now()}
	if err := s.build(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// say prints one step.
func (s *stage) say(format string, args ...any) {
	fmt.Printf("%8.3f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *stage) build(ctx context.Context) error {
	fmt.Printf("Brewline demo: %d simulated shards of one deployment behind a balancer that sticks by room\n\n", s.o.shards)
	var do jitsitest.DeploymentOptions
	do.Shard.XMPP.Accounts = map[string]string{account: password}
	do.Shard.Jicofo.Brewery = "jigasibrewery@internal.auth.meet.example"
	dep, err := jitsitest.NewDeployment(s.o.shards, do)
	if err != nil {
		return fmt.Errorf("start the simulated shards: %w", err)
	}
	s.dep = dep
	for _, sh := range dep.Shards {
		s.say("%s is up: %s", sh.Name, sh.BOSHURL())
	}
	s.say("balancer is up: %s", dep.Balancer.URL())
	if s.alice, err = s.join(ctx, room, aliceTone); err != nil {
		return err
	}
	s.home = s.shardOf(room)
	s.say("a participant is in the room %q on %s and says %d Hz", room, s.home, aliceTone)
	// Somebody in another room on another shard, who must not be heard.
	for i := 0; s.stranger == nil && i < 50; i++ {
		other := fmt.Sprintf("elsewhere%d", i)
		b, err := s.join(ctx, other, otherTone)
		if err != nil {
			return err
		}
		if at := s.shardOf(other); at != s.home || s.o.shards == 1 {
			s.stranger = b
			s.say("somebody else is in the room %q on %s and says %d Hz", other, at, otherTone)
		} else {
			b.Close()
		}
	}
	s.phone, err = siptest.NewPhone(siptest.PhoneOptions{Codec: "pcmu", User: "+4930123456", Display: "Demo phone"})
	if err != nil {
		return err
	}
	path, err := s.configure()
	if err != nil {
		return err
	}
	if s.gateway, err = startGateway(ctx, s.o.brewline, path, filepath.Join(s.o.out, "brewline.log")); err != nil {
		return err
	}
	for range s.o.shards {
		e, err := s.gateway.await(ctx, "shard up")
		if err != nil {
			return err
		}
		s.say("brewline: control session to %s is up", e.str("shard"))
	}
	return nil
}

func (s *stage) join(ctx context.Context, room string, tone int) (*jitsitest.Browser, error) {
	b, err := jitsitest.JoinBrowser(ctx, jitsitest.BrowserOptions{
		URL: s.dep.Balancer.URL() + "/http-bind", Room: room, Tone: tone,
	})
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", room, err)
	}
	return b, nil
}

// shardOf tells where a room lives, which nobody in the phone world knows.
func (s *stage) shardOf(room string) string {
	if sh := s.dep.ShardOf(room); sh != nil {
		return sh.Name
	}
	return ""
}

// configure writes, prints and keeps the gateway's configuration.
func (s *stage) configure() (string, error) {
	port := 0 // any that is free
	if s.o.stay {
		port = 5060 // where a softphone expects it
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Written by the demo.
[log]
format = "json"

[http]
listen = "127.0.0.1:0"

[sip]
listen = ["udp://127.0.0.1:%d", "tcp://127.0.0.1:%d"]

[media]
bind = "127.0.0.1"

[[trunk]]
name = "ipbx"
match = ["127.0.0.1"]
address = "sip:%s"
deployment = "demo"
codecs = ["opus", "g722", "pcma", "pcmu"]
rooms = { phoneMeet = %q }

# Without a rule nothing is dialled.
[[dial]]
name = "inland"
pattern = '\+49(\d+)'
number = "0$1"
trunks = ["ipbx"]

[[deployment]]
name = "demo"
domain = %q
balancer = "%s/http-bind?room={roomName}"
`, port, port, hostPort(s.phone), room, s.dep.Shards[0].Domain(), s.dep.Balancer.URL())
	for _, sh := range s.dep.Shards {
		fmt.Fprintf(&b, "\n[[shard]]\nname = %q\nurl = %q\nusername = %q\npassword = %q\n", sh.Name, sh.BOSHURL(), account, password)
	}
	path := filepath.Join(s.o.out, "brewline.toml")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return "", err
	}
	fmt.Printf("\nThe gateway's configuration, kept in %s:\n\n", path)
	for line := range strings.Lines(b.String()) {
		fmt.Print("    ", line)
	}
	fmt.Println()
	return path, nil
}

// hostPort is where a phone can be called.
func hostPort(p *siptest.Phone) string {
	_, at, _ := strings.Cut(p.URI("x"), "@")
	return at
}

func (s *stage) close() {
	if s.phone != nil {
		s.phone.Close()
	}
	if s.gateway != nil {
		s.gateway.stop()
	}
	for _, b := range []*jitsitest.Browser{s.alice, s.stranger} {
		if b != nil {
			b.Close()
		}
	}
	if s.dep != nil {
		s.dep.Close()
	}
}
