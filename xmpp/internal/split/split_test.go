package split

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

type record struct {
	root  string
	elems []Element
	ended int
}

func (r *record) Root(t []byte) error     { r.root = string(t); return nil }
func (r *record) Element(e Element) error { r.elems = append(r.elems, e); return nil }
func (r *record) End() error              { r.ended++; return nil }

func (r *record) strings() []string {
	var out []string
	for _, e := range r.elems {
		s := string(e.Data)
		if e.Bad {
			s = "!" + s
		}
		out = append(out, s)
	}
	return out
}

func TestSplit(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("<a>", 300) + strings.Repeat("</a>", 300)
	for _, tc := range []struct {
		name, in string
		rooted   bool
		want     []string
		ended    bool
		err      error
	}{
		{"stream", `<?xml version='1.0'?><s:s a='>'><a/> x <b c="/>">t<d/></b></s:s>`, true, []string{`<a/>`, `<b c="/>">t<d/></b>`}, true, nil},
		{"empty root", `<body type='terminate'/>`, true, nil, true, nil},
		{"alone", `<open/><a>1</a>`, false, []string{`<open/>`, `<a>1</a>`}, false, nil},
		{"cdata and comment", `<b><a><![CDATA[</a>]]]]>]]><!-- </a> --></a></b>`, true, []string{`<a><![CDATA[</a>]]]]>]]><!-- </a> --></a>`}, true, nil},
		{"comment between", `<b><!-- <x> --><a/></b>`, true, []string{`<a/>`}, true, nil},
		{"too big", `<b><a i='1'>` + strings.Repeat("x", 3000) + `</a><c/></b>`, true, []string{`!<a i='1'>`, `<c/>`}, true, nil},
		{"huge tag", `<b><a i='` + strings.Repeat("x", 3000) + `'/><c/></b>`, true, []string{`!`, `<c/>`}, true, nil},
		{"deep", `<b>` + deep + `<c/></b>`, true, []string{`!<a>`, `<c/>`}, true, nil},
		{"doctype", `<!DOCTYPE a><b/>`, true, nil, false, ErrDoctype},
		{"doctype inside", `<b><!ENTITY x></b>`, true, nil, false, ErrDoctype},
		{"stray end", `</b>`, true, nil, false, ErrTags},
		{"two roots", `<b/><b/>`, true, nil, true, ErrEnd},
	} {
		for _, chunk := range []int{1, 7, 1 << 20} {
			var r record
			s := New(&r, 1024, tc.rooted)
			var err error
			for in := []byte(tc.in); len(in) > 0 && err == nil; {
				n := min(chunk, len(in))
				err = s.Feed(in[:n])
				in = in[n:]
			}
			if err != tc.err {
				t.Errorf("%s/%d: error %v, want %v", tc.name, chunk, err, tc.err)
			}
			if got := strings.Join(r.strings(), "|"); got != strings.Join(tc.want, "|") {
				t.Errorf("%s/%d: got %s", tc.name, chunk, got)
			}
			if (r.ended == 1) != tc.ended {
				t.Errorf("%s/%d: ended %d", tc.name, chunk, r.ended)
			}
		}
	}
}

// FuzzSplit holds the splitter to encoding/xml: whatever that reads as one
// document with children must come out as those children, however it is cut.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(`<b x='1'><a/>t<c d="e">f</c><!-- g --></b>`), 3)
	f.Add([]byte(`<b><a><![CDATA[</a>]]></a></b>`), 1)
	f.Add([]byte(`<b><a b='/>'/ ></b>`), 2)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var one, two record
		a, b := New(&one, 1<<12, true), New(&two, 1<<12, true)
		errOne := a.Feed(in)
		cut = max(0, min(cut, len(in)))
		errTwo := b.Feed(in[:cut])
		if errTwo == nil {
			errTwo = b.Feed(in[cut:])
		}
		if errOne != errTwo || strings.Join(one.strings(), "") != strings.Join(two.strings(), "") {
			t.Fatalf("cut at %d: %v %q, %v %q", cut, errOne, one.strings(), errTwo, two.strings())
		}
		n, ok := children(in)
		if ok && errOne == nil && n != len(one.elems) {
			t.Fatalf("%d children, split gave %d", n, len(one.elems))
		}
	})
}

func children(in []byte) (n int, ok bool) {
	d := xml.NewDecoder(bytes.NewReader(in))
	depth := 0
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return n, depth == 0
		}
		if err != nil {
			return 0, false
		}
		switch tok.(type) {
		case xml.Directive:
			return 0, false
		case xml.StartElement:
			if depth++; depth == 2 {
				n++
			}
		case xml.EndElement:
			depth--
		}
	}
}
