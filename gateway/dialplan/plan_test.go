package dialplan

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestNormalize(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"+49 30 123-456", "+4930123456"}, {"tel:+49-30-123456", "+4930123456"}, {"TEL:+4930123456;phone-context=x", "+4930123456"},
		{"sip:+4930123456", "+4930123456"}, {"sip:030/12 34 56", "030123456"}, {"(030) 123.456", "030123456"},
		{"sip:%2B4930123456", "+4930123456"}, {"22.33.44.55", "22334455"}, {"tel:22.33.44.55", "22334455"},
		{"sip:10.0.0.1@10.0.0.2", "10001@10.0.0.2"}, {"sip:112@10.0.0.1:5060", "112@10.0.0.1:5060"}, {"112", "112"}, {"*98#", "*98#"}, {"callto:112", "112"},
		{"sip:Alice@Example.ORG;transport=tcp", "Alice@example.org"}, {"sips:+49 30 1@pbx.example:5061?x=y", "+49301@pbx.example:5061"},
		{"sip:bob@[2001:db8::1]", "bob@[2001:db8::1]"},
	} {
		if got, err := Normalize(tt.in); err != nil || got != tt.want {
			t.Errorf("%q becomes %q, %v; want %q", tt.in, got, err, tt.want)
		}
		if got, err := Normalize(tt.want); err != nil || got != tt.want {
			t.Errorf("%q is not stable: %q, %v", tt.want, got, err)
		}
	}
	for _, in := range []string{"", " ", "+", "alice", "sip:", "12\r\nVia: x", "sip:a b@c", "sip:a@b c", "1;2@3", "sip:a%zz@b", "4930+1",
		"sip:x%0d%0a@h", "jitsi_meet_transcribe", strings.Repeat("1", 200), "sip:@host", "sip:a@", "<1>",
		"sip:10.0.0.1", "SIPS:10.0.0.1", "sip:10.0.0.1:5060", "sip:10.0.0.1;transport=tcp", "sip:10.0.0.1?to=112", "sip:[2001:db8::1]", "sip:[::1]:5060",
		"sip:10.0.0.1;user=1@2"} {
		got, err := Normalize(in)
		if err == nil && in != "1;2@3" {
			t.Errorf("%q becomes %q", in, got)
		}
		if err != nil && !errors.Is(err, ErrNumber) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestOfContact(t *testing.T) {
	for in, want := range map[string]string{
		"sip:+49-30-123@192.0.2.1:5060;user=phone": "+4930123", "sip:112@[2001:db8::1]": "112", "tel:+49-30-123": "+4930123",
		"sip:%2B4930@pbx.example": "+4930", "sips:1.2@10.0.0.1": "12", "SIP:112@10.0.0.1": "112",
		"sip:10.0.0.1": "", "sips:10.0.0.1:5061": "", "sip:10.0.0.1;user=phone": "", "112@10.0.0.1": "", "112": "", "tel:112@10.0.0.1": "", "sip:": "", "sip:alice@example.org": "", "sip:192.0.2.1": "", "": "", "@": "", "sip:@h": "",
		"https://192.0.2.1/@x": "",
	} {
		if got, err := OfContact(in); got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrNumber) {
			t.Errorf("%q becomes %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"+49 30 1", "sip:a@b", "tel:1;x=y", "%2B1@[::1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := OfContact(s); err == nil {
			if again, err := Normalize(got); err != nil || again != got || strings.Contains(got, "@") {
				t.Errorf("the Contact %q becomes %q, %v", s, got, err)
			}
		}
		got, err := Normalize(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(got, " \r\n\t<>\";?,\x00") || len(got) > 2*maxNumber {
			t.Errorf("%q becomes %q", s, got)
		}
		if again, err := Normalize(got); err != nil || again != got {
			t.Errorf("%q is not stable: %q, %v", got, again, err)
		}
	})
}

func rules() []Rule {
	re := regexp.MustCompile
	return []Rule{
		{Name: "premium", Pattern: re(`\+49900\d+`), Deny: true},
		{Name: "inland", Pattern: re(`\+49(\d+)`), Trunks: []string{"a", "b"}, Number: "0$1", MaxCalls: 2},
		{Name: "eu", Shards: []string{"eu-1"}, Pattern: re(`\+3[0-9]+`), Trunks: []string{"b"}, PerMinute: 3},
	}
}

func TestAdmit(t *testing.T) {
	p := New(rules())
	for _, tt := range []struct {
		shard, to, number string
		err               error
	}{
		{"eu-1", "+4930123", "030123", nil},
		{"us-1", "+4930123", "030123", nil},
		{"eu-1", "+49900123", "", ErrDenied},
		{"eu-1", "+33123", "+33123", nil},
		{"us-1", "+33123", "", ErrNoRule},
		{"eu-1", "+4930123@evil.example", "", ErrNoRule}, // the whole must match
		{"eu-1", "x+4930123", "", ErrNoRule},
		{"eu-1", "112", "", ErrNoRule},
	} {
		r, release, err := p.Admit(tt.shard, tt.to)
		if !errors.Is(err, tt.err) || r.Number != tt.number {
			t.Errorf("%s from %s: %+v, %v", tt.to, tt.shard, r, err)
		}
		if release != nil {
			release()
		}
	}
	if _, _, err := New(nil).Admit("eu-1", "112"); !errors.Is(err, ErrNoRule) {
		t.Errorf("without rules: %v", err)
	}
	up := func(names string) func(string) bool {
		return func(n string) bool { return strings.Contains(names, n) }
	}
	for _, tt := range []struct {
		shard, up string
		want      bool
	}{{"eu-1", "b", true}, {"us-1", "b", true}, {"us-1", "c", false}} {
		if got := p.Allows(tt.shard, up(tt.up)); got != tt.want {
			t.Errorf("%s with trunk %s: %v", tt.shard, tt.up, got)
		}
	}
}

func TestLimits(t *testing.T) {
	p := New(rules())
	now := time.Now()
	p.now = func() time.Time { return now }
	_, r1, _ := p.Admit("x", "+491")
	_, _, _ = p.Admit("x", "+492")
	if _, _, err := p.Admit("x", "+493"); !errors.Is(err, ErrLimit) {
		t.Errorf("a third call at once: %v", err)
	}
	r1()
	r1() // giving a place back twice gives one back
	if _, _, err := p.Admit("x", "+493"); err != nil {
		t.Error(err)
	}
	if _, _, err := p.Admit("x", "+494"); !errors.Is(err, ErrLimit) {
		t.Errorf("a third call at once: %v", err)
	}
	for range 3 {
		if _, release, err := p.Admit("eu-1", "+33"); err != nil {
			t.Error(err)
		} else {
			release()
		}
	}
	if _, _, err := p.Admit("eu-1", "+33"); !errors.Is(err, ErrLimit) {
		t.Errorf("a fourth call in a minute: %v", err)
	}
	p.SetRules(rules())
	if _, _, err := p.Admit("eu-1", "+33"); !errors.Is(err, ErrLimit) {
		t.Errorf("a reload forgot what was dialled: %v", err)
	}
	now = now.Add(time.Minute)
	if _, _, err := p.Admit("eu-1", "+33"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}
