package jingle

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var jingleElement = regexp.MustCompile(`(?s)<jingle .*?</jingle>`)

// recorded returns the jingle elements of a capture.
func recorded(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	all := jingleElement.FindAll(b, -1)
	if len(all) == 0 {
		t.Fatalf("%s: no jingle", name)
	}
	return all
}

func parse(t testing.TB, b []byte) *Jingle {
	t.Helper()
	j, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestOfferToAGateway(t *testing.T) {
	t.Parallel()
	o, err := AudioOffer(parse(t, recorded(t, "session-initiate-jigasi-features")[0]))
	if err != nil {
		t.Fatal(err)
	}
	want := Offer{
		Action: SessionInitiate, SID: "6tpp9rlue4dlp", Initiator: "focus@auth.meet.shard1.test/focus",
		BridgeSession: "4915f46c-c03d-48f3-8b6e-6bdbc0cd4653", Content: "audio",
		OpusPT: 111, OpusParams: map[string]string{"minptime": "10", "useinbandfec": "1"}, EventPT: 126, EventRate: 8000, AudioLevelID: 1,
		Ufrag: "29arc1k81tflna", Pwd: "13a1d23ba1h44mv9qhp8rp4rh7",
		Fingerprint: Fingerprint{Hash: "sha-256", Setup: "actpass",
			Value: "87:7F:28:99:BB:8C:47:94:04:D0:A7:35:16:68:FE:E2:49:85:FD:84:9F:F7:BC:CA:E6:65:BB:05:9C:08:2B:AE"},
		Candidates: []Candidate{{Component: 1, Foundation: "1", ID: "10264b9f28576ee60ffffffffa9550e56", IP: "127.0.0.1",
			Port: 10000, Priority: 2130706431, Protocol: "udp", Type: "host"}},
		WebSockets: []string{"ws://127.0.0.1:15090/colibri-ws/jvb1/7773bc2caf017c57/8acd7d62?pwd=ojTliE5ysWClbH1rQtzN5sAm"},
		Sources: []Source{
			{SSRC: 1111111, Name: "50707b25-a0", Owner: "50707b25", MSID: "50707b25-audio-0-1 a0"},
			{SSRC: 524916201, Name: "jvb-a0", Owner: "jvb", MSID: "mixedmslabel mixedlabelaudio0"},
			{SSRC: 3333333, Name: "19f5a4b1-a0", Owner: "19f5a4b1", MSID: "19f5a4b1-audio-0-1 a0"},
		},
	}
	if d := cmp.Diff(want, o, cmpopts.IgnoreUnexported(Offer{})); d != "" {
		t.Error(d)
	}
}

func TestOffersToWebClients(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ audio, all, contents int }{
		"session-initiate":                 {1, 2, 3},
		"session-initiate-bob":             {1, 2, 3},
		"session-initiate-web-xml-sources": {4, 7, 2},
	} {
		j := parse(t, recorded(t, name)[0])
		o, err := AudioOffer(j)
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Sources) != want.audio || len(j.Sources) != want.all || len(j.Contents) != want.contents {
			t.Errorf("%s: %d audio sources of %d, %d contents: %+v", name, len(o.Sources), len(j.Sources), len(j.Contents), j.Sources)
		}
		for _, s := range o.Sources {
			if s.Owner == "" || s.MSID == "" || !strings.HasSuffix(s.Name, "-a0") {
				t.Errorf("%s: %+v", name, s)
			}
		}
		// Video is taken with nothing flowing.
		a := Accept(o, Answer{})
		if len(a.Contents) != 2 || a.Contents[1].Senders != "none" || len(a.Group) != 2 {
			t.Errorf("%s: accept %+v", name, a)
		}
		if b, err := xml.Marshal(a); err != nil || !strings.Contains(string(b), `<initial-last-n xmlns="jitsi:colibri2" value="0">`) {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
}

func TestOtherActions(t *testing.T) {
	t.Parallel()
	j := parse(t, recorded(t, "source-add-sipleg")[0])
	if j.Action != SourceAdd || len(j.Sources) != 1 || j.Sources[0] != (Source{SSRC: 7777777, Name: "9b544bd8-a0", Owner: "9b544bd8", MSID: "9b544bd8-audio-0-1 a0"}) {
		t.Errorf("source-add %+v", j)
	}
	actions := map[string]int{}
	for _, b := range recorded(t, "failure-jvb-restart") {
		j := parse(t, b)
		actions[j.Action]++
		if j.Action == SessionTerminate && j.Reason != (Reason{"success", "moving"}) {
			t.Errorf("terminate %+v", j.Reason)
		}
	}
	if actions[SessionInitiate] != 2 || actions[SessionTerminate] != 1 {
		t.Errorf("actions %v", actions)
	}
	if o, err := AudioOffer(parse(t, recorded(t, "policy-late-joiner-under-avmod")[0])); err != nil || !o.StartMuted {
		t.Errorf("late joiner under moderation: %+v, %v", o.StartMuted, err)
	}
}

const offerTemplate = `<jingle xmlns='urn:xmpp:jingle:1' action='%s' sid='s1' initiator='focus@auth.meet.test/focus'>
<content creator='initiator' name='audio' senders='both'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>
%s</description><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='u' pwd='p'>
<fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='SHA-256' setup='actpass'> AA:BB </fingerprint>
<candidate component='1' foundation='1' generation='0' id='a' ip='2001:db8::1' port='10000' network='0' priority='1677724415' protocol='UDP' type='srflx' rel-addr='10.0.0.4' rel-port='9'/>
<candidate component='2' foundation='1' ip='10.0.0.4' port='10001' priority='1' protocol='udp' type='host'/>
<candidate component='1' foundation='1' ip='x.local' port='10002' priority='1' protocol='udp' type='host'/>
<candidate component='1' foundation='1' ip='10.0.0.4' port='10003' priority='1' protocol='tcp' type='host'/>
<candidate component='1' foundation='1' ip='10.0.0.4' port='99999' priority='1' protocol='udp' type='host'/>
</transport></content>%s</jingle>`

func TestOddNumbersAndExtras(t *testing.T) {
	t.Parallel()
	in := fmt.Sprintf(offerTemplate, TransportReplace, `
<payload-type id='300' name='opus' clockrate='48000'/><payload-type id='0' name='PCMU' clockrate='8000'/>
<payload-type id='109' name='OPUS' clockrate='48000'/>
<rtp-hdrext xmlns='urn:xmpp:jingle:apps:rtp:rtp-hdrext:0' id='x' uri='urn:ietf:params:rtp-hdrext:ssrc-audio-level'/>
<rtp-hdrext xmlns='urn:xmpp:jingle:apps:rtp:rtp-hdrext:0' id='7' uri='urn:ietf:params:rtp-hdrext:ssrc-audio-level'/>
<source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='-1'/>
<source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='4294967295'><ssrc-info xmlns='http://jitsi.org/jitmeet' owner='room@conference.meet.test/AB12cd34'/></source>`,
		`<bridge-session xmlns='http://jitsi.org/protocol/focus' id='b1' region='eu-1'/><what xmlns='unknown'/>
<json-message xmlns='http://jitsi.org/jitmeet'>{"sources":{"0F8E77AA":[[{"s":5,"n":"v"}],[["f",5,6]],[{"s":3735928559,"n":"0f8e77aa-a0","m":"x y"},{"s":0},{"s":99999999999}]],"b":[[]],"c":[]}}</json-message>`)
	j := parse(t, []byte(in))
	o, err := AudioOffer(j)
	if err != nil {
		t.Fatal(err)
	}
	if o.OpusPT != 109 || o.AudioLevelID != 7 || o.Region != "eu-1" || o.BridgeSession != "b1" {
		t.Errorf("%+v", o)
	}
	if f := o.Fingerprint; f.Hash != "sha-256" || f.Value != "AA:BB" {
		t.Errorf("fingerprint %+v", f)
	}
	if len(o.Candidates) != 1 || o.Candidates[0].IP != "2001:db8::1" || o.Candidates[0].Protocol != "udp" || o.Candidates[0].RelPort != 9 {
		t.Errorf("candidates %+v", o.Candidates)
	}
	want := []Source{{SSRC: 4294967295, Owner: "ab12cd34"}, {SSRC: 3735928559, Name: "0f8e77aa-a0", Owner: "0f8e77aa", MSID: "x y"}}
	if d := cmp.Diff(want, o.Sources); d != "" {
		t.Error(d)
	}
}

func TestUnusableOffers(t *testing.T) {
	t.Parallel()
	for want, in := range map[error]string{
		ErrNoAudio:     `<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='1'/>`,
		ErrNoOpus:      fmt.Sprintf(offerTemplate, SessionInitiate, `<payload-type id='8' name='PCMA' clockrate='8000'/>`, ""),
		ErrNoTransport: `<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='1'><content name='audio'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'><payload-type id='111' name='opus' clockrate='48000'/></description></content></jingle>`,
	} {
		if _, err := AudioOffer(parse(t, []byte(in))); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	for _, in := range []string{"", "<a/>", "<jingle/>", "<jingle xmlns='urn:xmpp:jingle:1' sid='1'/>", "<jingle xmlns='urn:xmpp:jingle:1' action='x'/>",
		"<jingle xmlns='urn:xmpp:jingle:1' action='source-add' sid='1'><json-message xmlns='http://jitsi.org/jitmeet'>{</json-message></jingle>",
		"<jingle xmlns='urn:xmpp:jingle:1' action='source-add' sid='1'><json-message xmlns='http://jitsi.org/jitmeet'>{\"sources\":{\"a\":[{}]}}</json-message></jingle>",
	} {
		if j, err := Parse([]byte(in)); err == nil {
			t.Errorf("%s: %+v", in, j)
		}
	}
	many := strings.Repeat(`{"s":7},`, maxSources+1)
	in := `<jingle xmlns='urn:xmpp:jingle:1' action='source-add' sid='1'><json-message xmlns='http://jitsi.org/jitmeet'>{"sources":{"a":[[],[],[` + many[:len(many)-1] + `]]}}</json-message></jingle>`
	if _, err := Parse([]byte(in)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many sources: %v", err)
	}
	if _, err := Parse(make([]byte, maxBytes+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many bytes: %v", err)
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	o, err := AudioOffer(parse(t, recorded(t, "session-initiate-jigasi-features")[0]))
	if err != nil {
		t.Fatal(err)
	}
	o.OpusPT, o.AudioLevelID = 109, 7
	answer := Answer{Action: SessionAccept, Responder: "u@meet.test/r", SourceName: "ab12cd34-a0", MSID: "ab12cd34-audio-0-1 a0",
		SSRC: 2882343476, Ufrag: "uf", Pwd: "pw", FingerprintHash: "sha-256", FingerprintValue: "AA:BB",
		Candidates: []Candidate{{Component: 1, Foundation: "1", ID: "c1", IP: "192.0.2.1", Port: 20000, Priority: 2130706431, Protocol: "udp", Type: "host"}}}
	b, err := xml.Marshal(Accept(o, answer))
	if err != nil {
		t.Fatal(err)
	}
	want := `<jingle xmlns="urn:xmpp:jingle:1" action="session-accept" sid="6tpp9rlue4dlp" initiator="focus@auth.meet.shard1.test/focus" responder="u@meet.test/r">` +
		`<content creator="initiator" name="audio" senders="both">` +
		`<description xmlns="urn:xmpp:jingle:apps:rtp:1" media="audio">` +
		`<payload-type id="109" name="opus" clockrate="48000" channels="2"><parameter name="minptime" value="10"></parameter><parameter name="useinbandfec" value="1"></parameter></payload-type>` +
		`<payload-type id="126" name="telephone-event" clockrate="8000"></payload-type>` +
		`<rtp-hdrext xmlns="urn:xmpp:jingle:apps:rtp:rtp-hdrext:0" id="7" uri="urn:ietf:params:rtp-hdrext:ssrc-audio-level"></rtp-hdrext>` +
		`<source xmlns="urn:xmpp:jingle:apps:rtp:ssma:0" ssrc="2882343476" name="ab12cd34-a0"><parameter name="msid" value="ab12cd34-audio-0-1 a0"></parameter></source>` +
		`<rtcp-mux></rtcp-mux></description>` +
		`<transport xmlns="urn:xmpp:jingle:transports:ice-udp:1" ufrag="uf" pwd="pw"><rtcp-mux></rtcp-mux>` +
		`<fingerprint xmlns="urn:xmpp:jingle:apps:dtls:0" hash="sha-256" setup="active">AA:BB</fingerprint>` +
		`<candidate component="1" foundation="1" generation="0" id="c1" ip="192.0.2.1" network="0" port="20000" priority="2130706431" protocol="udp" type="host"></candidate>` +
		`</transport></content>` +
		`<group xmlns="urn:xmpp:jingle:apps:grouping:0" semantics="BUNDLE"><content name="audio"></content></group></jingle>`
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Error(d)
	}
	answer.Action = TransportAccept
	if b, err = xml.Marshal(Accept(o, answer)); err != nil || strings.Contains(string(b), "<source") || !strings.Contains(string(b), `action="transport-accept"`) {
		t.Errorf("transport-accept: %s, %v", b, err)
	}
}

func TestOtherRequests(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		j    *Jingle
		want string
	}{
		{Terminate("s", "i", "connectivity-error", "ICE failed", "b1", true),
			`<jingle xmlns="urn:xmpp:jingle:1" action="session-terminate" sid="s" initiator="i"><reason><connectivity-error></connectivity-error><text>ICE failed</text></reason><bridge-session xmlns="http://jitsi.org/protocol/focus" id="b1" restart="true"></bridge-session></jingle>`},
		{Terminate("s", "", "success", "", "", false),
			`<jingle xmlns="urn:xmpp:jingle:1" action="session-terminate" sid="s"><reason><success></success></reason></jingle>`},
		{TransportInformation("s", "i", "audio", Transport{Ufrag: "u", Pwd: "p", ICEGeneration: "2"}),
			`<jingle xmlns="urn:xmpp:jingle:1" action="transport-info" sid="s" initiator="i"><content creator="initiator" name="audio"><transport xmlns="urn:xmpp:jingle:transports:ice-udp:1" ufrag="u" pwd="p" ice-generation="2"></transport></content></jingle>`},
		{ChangeSources(SourceAdd, "s", "i", "audio", Source{SSRC: 9, Name: "n-a0", MSID: "m"}),
			`<jingle xmlns="urn:xmpp:jingle:1" action="source-add" sid="s" initiator="i"><content creator="initiator" name="audio"><description xmlns="urn:xmpp:jingle:apps:rtp:1" media="audio"><source xmlns="urn:xmpp:jingle:apps:rtp:ssma:0" ssrc="9" name="n-a0"><parameter name="msid" value="m"></parameter></source></description></content></jingle>`},
	} {
		b, err := xml.Marshal(tc.j)
		if err != nil || string(b) != tc.want {
			t.Errorf("%v\n got %s\nwant %s", err, b, tc.want)
		}
	}
}

// same reports whether two elements say the same. What only the focus says is
// not written by us.
func same(a, b *Jingle) string {
	return cmp.Diff(a, b, cmpopts.IgnoreFields(Jingle{}, "Sources", "StartMuted"), cmpopts.IgnoreFields(Source{}, "Owner"),
		cmpopts.EquateEmpty())
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"session-initiate-jigasi-features", "session-initiate", "session-initiate-web-xml-sources", "source-add-sipleg", "failure-jvb-restart"} {
		for _, b := range recorded(f, name) {
			f.Add(b)
		}
	}
	f.Add([]byte(`<jingle xmlns='urn:xmpp:jingle:1' action='session-info' sid='1'><bridge-session xmlns='http://jitsi.org/protocol/focus' id='x' ice-restart='true'/></jingle>`))
	f.Fuzz(func(t *testing.T, in []byte) {
		j, err := Parse(in)
		if err != nil {
			return
		}
		for _, s := range j.Sources {
			if s.SSRC == 0 {
				t.Fatal("source 0")
			}
		}
		if o, err := AudioOffer(j); err == nil {
			a := Accept(o, Answer{SSRC: 1, Ufrag: "u", Pwd: "p", FingerprintHash: "sha-256", FingerprintValue: "AA"})
			b, err := xml.Marshal(a)
			if err != nil {
				return // names that XML cannot carry
			}
			if _, err := Parse(b); err != nil {
				t.Fatalf("accept does not parse: %v\n%s", err, b)
			}
		}
	})
}

func FuzzJSONSources(f *testing.F) {
	f.Add([]byte(`{"sources":{"jvb":[[],[],[{"s":524916201,"n":"jvb-a0","m":"mixedmslabel mixedlabelaudio0"}]],"a":[[{"s":1}],[["f",1,2]]]}}`))
	f.Add([]byte(`{"type":"room_metadata"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		sources, err := parseJSONSources(in)
		if err != nil {
			return
		}
		for _, s := range sources {
			if s.SSRC == 0 {
				t.Fatal("source 0")
			}
		}
	})
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"session-initiate-jigasi-features", "session-initiate-web-xml-sources", "failure-jvb-restart"} {
		for _, in := range recorded(t, name) {
			j := parse(t, in)
			b, err := xml.Marshal(j)
			if err != nil {
				t.Fatal(err)
			}
			if d := same(j, parse(t, b)); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
}

func BenchmarkParseOffer(b *testing.B) {
	in := recorded(b, "session-initiate-jigasi-features")[0]
	b.ReportAllocs()
	for b.Loop() {
		j, err := Parse(in)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := AudioOffer(j); err != nil {
			b.Fatal(err)
		}
	}
}
