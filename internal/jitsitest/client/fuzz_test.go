package client

import "testing"

func FuzzBody(f *testing.F) {
	f.Add([]byte("<body xmlns='http://jabber.org/protocol/httpbind' sid='x' type='terminate'><iq xmlns='jabber:client' id='a' type='result'/></body>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBody(data)
		if err != nil {
			return
		}
		for _, s := range b.stanzas {
			if s.Name == "" || len(s.XML) > len(data) {
				t.Errorf("stanza %+v", s)
			}
		}
	})
}
