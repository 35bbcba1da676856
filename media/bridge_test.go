package media

import (
	"fmt"
	"testing"
	"time"
)

// Tones go through every codec both ways at once, whatever the packet times.
func TestTonesBothWays(t *testing.T) {
	for _, name := range []string{"pcmu", "pcma", "g722", "opus"} {
		for _, ms := range []int{10, 20, 30, 40, 50, 60} {
			t.Run(fmt.Sprintf("%s/%d", name, ms), func(t *testing.T) {
				t.Parallel()
				c := newCall(t, name, time.Duration(ms)*time.Millisecond)
				theirs := ms
				if name == "opus" && (ms == 30 || ms == 50) {
					theirs = 20 // not a length of Opus packets
				}
				phone := newTalker(t, name, phonePT(name), 1, theirs)
				phone.pcm = sine(440, phone.rate, 2*time.Second)
				web := newTalker(t, "opus", testOpusPT, 2, 20)
				web.levelID = testLevel
				web.pcm = sine(1000, web.rate, 2*time.Second)
				c.says(phone, c.phone, 3*time.Millisecond)
				c.says(web, c.conf, 7*time.Millisecond)
				c.run(1200 * time.Millisecond)

				up := listen(t, "opus", 48000, c.conf.rtp, testLevel)
				hears(t, "videobridge", up.pcm, 48000, 440)
				for i, p := range up.packets {
					if p.ssrc != 7777 || p.pt != testOpusPT || up.levels[i] < 0 {
						t.Fatalf("packet %d to the videobridge: ssrc %d, payload type %d, level %d", i, p.ssrc, p.pt, up.levels[i])
					}
				}
				down := listen(t, name, 0, c.phone.rtp, 0)
				hears(t, "phone", down.pcm, down.rate, 1000)
				for i, p := range down.packets {
					if p.ssrc != 4242 || p.pt != phonePT(name) || p.marker != (i == 0) {
						t.Fatalf("packet %d to the phone: ssrc %d, payload type %d, marker %v", i, p.ssrc, p.pt, p.marker)
					}
					if i > 0 && p.seq != down.packets[i-1].seq+1 {
						t.Fatalf("packet %d to the phone: sequence %d after %d", i, p.seq, down.packets[i-1].seq)
					}
				}
				s := c.bridge.Stats()
				if s.Phone.Concealed+s.Conference.Concealed != 0 || s.Phone.Late+s.Conference.Late != 0 {
					t.Errorf("concealed or late on a clean network: %+v", s)
				}
			})
		}
	}
}
