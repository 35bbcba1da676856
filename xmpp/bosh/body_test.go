package bosh

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"brewline/xmpp/internal/split"
)

type splitElement = split.Element

func TestReadBody(t *testing.T) {
	t.Parallel()
	b, err := ReadBody(strings.NewReader(`<?xml version='1.0'?>
<body xmlns='http://jabber.org/protocol/httpbind' sid='a&amp;b' wait='60' requests='2' inactivity='x' xmlns:stream='s'><stream:features/><m>`+
		strings.Repeat("y", 5000)+`</m><iq/></body>`), 1000)
	if err != nil {
		t.Fatal(err)
	}
	if b.SID != "a&b" || b.Wait != 60 || b.Requests != 2 || b.Inactivity != 0 || len(b.Elements) != 3 {
		t.Errorf("%+v", b)
	}
	if e := b.Elements[1]; !e.Bad || string(e.Data) != "<m>" {
		t.Errorf("too large a stanza: %+v", e)
	}
	for _, in := range []string{"", "x", "<body/>", "<html xmlns='http://jabber.org/protocol/httpbind'/>",
		"<body xmlns='http://jabber.org/protocol/httpbind'>", "<body xmlns='http://jabber.org/protocol/httpbind'/><body/>",
		"<body xmlns='http://jabber.org/protocol/httpbind' <a/></body>"} {
		if b, err := ReadBody(strings.NewReader(in), 1000); err == nil {
			t.Errorf("%s: %+v", in, b)
		}
	}
}

func TestReadBodyBounded(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("<m>"+strings.Repeat("y", 1<<20)+"</m>", 20)
	_, err := ReadBody(strings.NewReader("<body xmlns='"+nsBOSH+"'>"+big+"</body>"), 2<<20)
	if !errors.Is(err, errBody) {
		t.Errorf("20 MiB: %v", err)
	}
}

func FuzzReadBody(f *testing.F) {
	names, err := filepath.Glob("testdata/*.xml")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' condition='x'/>`))
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := ReadBody(bytes.NewReader(in), 1<<12)
		if err != nil {
			return
		}
		for _, e := range b.Elements {
			if len(e.Data) > 1<<12 {
				t.Errorf("element of %d bytes", len(e.Data))
			}
			if !e.Bad && (e.Data[0] != '<' || e.Data[len(e.Data)-1] != '>') {
				t.Errorf("element %q", e.Data)
			}
		}
	})
}
