package sip_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"brewline/sip"
)

// TestSessions plays sessions of several offers and answers with phones and
// exchanges of the field (RFC 3264 §8). In a file of testdata/sessions are what
// the peer offers and answers, and where we offer; what we say, and what was
// agreed on then, is compared.
func TestSessions(t *testing.T) {
	files, err := filepath.Glob("testdata/sessions/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no sessions", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playSession(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(string(text), got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// Headings of a session's parts.
const (
	theyOffer, weAnswer, weRefuse = "=== they offer", "=== we answer", "=== we refuse"
	weOffer, theyAnswer, agreed   = "=== we offer", "=== they answer", "=== agreed"
)

func playSession(t *testing.T, text string) string {
	t.Helper()
	intro, rest, _ := strings.Cut(text, "===")
	l := localFor("opus g722 pcma pcmu")
	l.ComfortNoise, l.RTCPMux = true, false
	var out strings.Builder
	out.WriteString(intro)
	part := func(heading, body string) { fmt.Fprintf(&out, "%s\n%s", heading, body) }
	plain := func(s *sip.SDP) string { return strings.ReplaceAll(string(s.Marshal()), "\r\n", "\n") }
	conclude := func(m sip.Media, peer *sip.SDP) {
		l.Agreed, l.Peer = &m, peer
		part(agreed, fmt.Sprintf("%s as %d, %d from them; events as %d, %d from them; comfort noise as %d; to %s, RTCP %s; send %v, receive %v; ptime %v, at most %v\n",
			m.Codec.Name, m.Codec.PT, m.RecvPT, m.EventPT, m.RecvEventPT, m.CNPT, m.Remote, m.RemoteRTCP, m.Send, m.Receive, m.Ptime, m.MaxPtime))
	}
	var mine *sip.SDP // offered
	for _, p := range strings.Split("==="+rest, "\n===") {
		heading, body, _ := strings.Cut("==="+strings.TrimPrefix(p, "==="), "\n")
		if body != "" && !strings.HasSuffix(body, "\n") {
			body += "\n"
		}
		var theirs *sip.SDP
		if heading == theyOffer || heading == theyAnswer {
			var err error
			if theirs, err = sip.ParseSDP(bytes.ReplaceAll([]byte(body), []byte("\n"), []byte("\r\n"))); err != nil {
				t.Fatal(err)
			}
			part(heading, body)
		}
		switch heading {
		case theyOffer:
			ans, m, err := sip.Answer(theirs, l)
			if err != nil {
				part(weRefuse, err.Error()+"\n")
				continue
			}
			l.Version++
			part(weAnswer, plain(ans))
			l.Last = ans
			conclude(m, theirs)
		case weOffer:
			mine = sip.Offer(l)
			l.Version++
			part(weOffer, plain(mine))
		case theyAnswer:
			m, err := sip.Accept(mine, theirs, l)
			if err != nil {
				part(weRefuse, err.Error()+"\n")
				continue
			}
			l.Last = mine
			conclude(m, theirs)
		case weAnswer, weRefuse, agreed: // written anew
		default:
			t.Fatalf("heading %q", heading)
		}
	}
	return out.String()
}
