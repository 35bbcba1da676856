package jigasi

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseProperties(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"separators", "a=1\nb:2\nc 3\nd\t=\t4\ne : 5\nf   6 = 7\n", "1 a=1|2 b=2|3 c=3|4 d=4|5 e=5|6 f=6 = 7"},
		{"comments", "# a=1\n  ! b=2\n\n   \nc=#3 # kept\n", "5 c=#3 # kept"},
		{"no value", "a\nb=\nc:\nd", "1 a=|2 b=|3 c=|4 d="},
		{"separators in values", "a==1\nb=:2\nc:=3\n", "1 a==1|2 b=:2|3 c==3"},
		{"blanks", "  a = 1 \t\n\tb=2", "1 a=1 \t|2 b=2"},
		{"escaped keys", `SIP\:a\=b\ c\\=1`, `1 SIP:a=b c\=1`},
		{"continued", "a=1,\\\n   2,\\\n\t3\nb=4", "1 a=1,2,3|4 b=4"},
		{"continued key", "a\\\n  b=1", "1 ab=1"},
		{"continued over a blank line", "a=1\\\n\nb=2", "1 a=1|3 b=2"},
		{"a comment cannot be continued", "# a\\\nb=2", "2 b=2"},
		{"a continuation is no comment", "a=1\\\n#2", "1 a=1#2"},
		{"escaped backslash at the end", "a=1\\\\\nb=2", "1 a=1\\|2 b=2"},
		{"backslash at the very end", "a=1\\", "1 a=1"},
		{"line ends", "a=1\rb=2\r\nc=3\\\r\n 4\rd=5", "1 a=1|2 b=2|3 c=34|5 d=5"},
		{"escapes", `a=\t\n\r\f\u00e9\q\"\'` + "\nb=\\ 2", "1 a=\t\n\r\fé" + `q"'` + "|2 b= 2"},
		{"surrogates", `a=\uD83D\uDE00 \uD83Dx \uDE00 \uD83D\u0041`, "1 a=😀 \ufffdx \ufffd \ufffdA"},
		{"Latin-1", "a=\xe9t\xe9", "1 a=été"},
		{"UTF-8", "\ufeffa=été", "1 a=été"},
		{"empty key", "=1", "1 =1"},
		{"form feed", "\fa\f=\f1", "1 a=1"},
	} {
		props, err := parseProperties("f", []byte(tt.in))
		var got []string
		for _, p := range props {
			got = append(got, strings.TrimPrefix(p.where(), "f:")+" "+p.key+"="+p.value)
		}
		if d := cmp.Diff(tt.want, strings.Join(got, "|")); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got)\n%s", tt.name, err, d)
		}
	}
	for in, want := range map[string]string{
		`a=\u12`:         `f:1: value of a: \u is not`,
		"x=1\n\\u00zz=1": `f:2: \u is not`,
		`a=\uD83D\u12`:   `f:1: value of a: \u is not`,
		"a=\\\n\\u+123":  `f:1: value of a: \u is not`,
	} {
		if _, err := parseProperties("f", []byte(in)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestParseEnv(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "A=1\nexport B = 2\n#C=3\nnot a line\nD=\n", "1 A=1|2 B=2|5 D="},
		{"comments", "A=1 # one\nB=1#one\nC=# one\nD='#1' # one\n", "1 A=1|2 B=1#one|3 C=|4 D=#1"},
		{"quotes", `A="x \"y\" \\ \$Z"` + "\nB='x \\n $A'\nC=\"1\\n2\"", "1 A=x \"y\" \\ $Z|2 B=x \\n $A|3 C=1\n2"},
		{"lines", "A=\"1\n2\"\nB='3\n4'\nC=5", "1 A=1\n2|3 B=3\n4|5 C=5"},
		{"ends of lines within", "A=\"1\r\n2\" # 3\rB=4", "1 A=1\n2|3 B=4"},
		{"each doubles", "A=" + strings.Repeat("x", maxValue) + "\nB=$A$A\n", "1 A=" + strings.Repeat("x", maxValue) + "|2 B=$A$A"},
		{"never closed", "A=\"1\nB=2\nC='3'", "1 A=1|2 B=2|3 C=3"},
		{"variables", "A=1\nB=${A}$A-${C:-x}${C-y}${A:-z}\nC=$$A\nD=$NOPE ${NOPE}\nE=\nF=${E:-e}${E-e}", "1 A=1|2 B=11-xy1|3 C=$A|4 D=$NOPE ${NOPE}|5 E=|6 F=e"},
		{"line ends", "A=1\r\nB=2\r\n", "1 A=1|2 B=2"},
	} {
		var got []string
		for _, p := range parseEnv("f", []byte(tt.in)) {
			got = append(got, strings.TrimPrefix(p.where(), "f:")+" "+p.key+"="+p.value)
		}
		if d := cmp.Diff(tt.want, strings.Join(got, "|")); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
	}
}

// FuzzProperties: what is read can be written again and read the same.
func FuzzProperties(f *testing.F) {
	for _, s := range []string{"a=1\nb : 2\\\n 3", `\u00e9=\t\\`, "!x\r\n y\fz", `a=\uD83D\uDE00`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		props, err := parseProperties("f", data)
		if err != nil {
			return
		}
		lines := strings.Count(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n") + strings.Count(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r") + 1
		var b strings.Builder
		escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\f", `\f`, " ", `\ `, "=", `\=`, ":", `\:`, "#", `\#`, "!", `\!`)
		for _, p := range props {
			if p.line < 1 || p.line > lines {
				t.Errorf("line %d of %d", p.line, lines)
			}
			b.WriteString(escape.Replace(p.key) + "=" + escape.Replace(p.value) + "\n")
		}
		again, err := parseProperties("f", []byte(b.String()))
		if err != nil || len(again) != len(props) {
			t.Fatalf("%d properties, then %d, %v", len(props), len(again), err)
		}
		for i := range props {
			if props[i].key != again[i].key || props[i].value != again[i].value {
				t.Errorf("%q=%q becomes %q=%q", props[i].key, props[i].value, again[i].key, again[i].value)
			}
		}
	})
}

func FuzzEnv(f *testing.F) {
	f.Add([]byte("A=1\nB=\"$A\n${A:-x}\" # c\nexport C='x'"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range parseEnv("f", data) {
			if p.key == "" || p.line < 1 {
				t.Errorf("%+v", p)
			}
		}
	})
}
