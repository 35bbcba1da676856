package realstack

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"brewline/internal/needtool"
	"brewline/internal/tone"
)

// baresip is a running baresip that says a tone and records what it hears. It
// takes its commands from standard input.
type baresip struct {
	*process
	dir, codec string
}

type baresipOptions struct {
	codec   string // as the account names it: pcmu, g722/16000/1, opus/48000/2
	tone    int
	at      string // its own address, default 127.0.0.1
	encrypt string // how it encrypts its audio: srtp, srtp-mand, srtp-mandf, dtls_srtp
	cert    string // file of the certificate that it shows, with its key; "": none
	answers string // the user that it is, who answers calls at once; "": one who makes calls
}

// Debian's baresip 1.0 sends no header of the user's, so that its calls find
// their room by number. It records only until it has been on hold; from then on
// it can say back what it hears, when its source is made the bridge whose other
// end its player is from the start. Its paths are relative, as the recorder
// takes no long ones.
const baresipConfig = `
sip_listen          %[3]s
net_interface       %[4]s
call_local_timeout  60
ringback_disabled   yes
audio_buffer        20-160
jitter_buffer_delay 1-10
snd_path            .
audio_source        ausine,%[1]d
ausrc_srate         48000
ausrc_channels      2
audio_player        aubridge,echo
auplay_srate        48000
auplay_channels     2
module_path         %[2]s
module              stdio.so
module              opus.so
module              g722.so
module              g711.so
module              sndfile.so
module              ausine.so
module              aubridge.so
module              srtp.so
module              dtls_srtp.so
module_tmp          account.so
module_app          menu.so
module_app          debug_cmd.so
`

func startBaresip(t *testing.T, ctx context.Context, o baresipOptions) *baresip {
	t.Helper()
	path := needtool.Path(t, "baresip")
	b := &baresip{dir: t.TempDir(), codec: o.codec}
	at := netip.MustParseAddr(cmp.Or(o.at, "127.0.0.1"))
	own := netip.AddrPortFrom(at, 0).String()
	config := fmt.Sprintf(baresipConfig, o.tone, modules(t), own, at)
	if o.encrypt == "dtls_srtp" {
		config += "rtcp_mux yes\n"
	}
	if o.cert != "" {
		config += "sip_certificate " + o.cert + "\n"
	}
	account := fmt.Sprintf("<sip:%s@%s>;regint=0;audio_codecs=%s", cmp.Or(o.answers, "phone"), strings.TrimSuffix(own, ":0"), o.codec)
	if o.answers != "" {
		account += ";answermode=auto"
	}
	if o.encrypt != "" {
		account += ";mediaenc=" + o.encrypt
	}
	for name, text := range map[string]string{"config": config, "accounts": account + "\n"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, "-f", ".")
	cmd.Dir = b.dir
	b.process = launch(t, "baresip", cmd)
	b.wait(ctx, "baresip is ready")
	return b
}

// modules is the folder of baresip's modules.
func modules(t *testing.T) string {
	found, _ := filepath.Glob("/usr/lib/baresip/modules")
	more, _ := filepath.Glob("/usr/lib/*/baresip/modules")
	if found = append(found, more...); len(found) == 0 {
		t.Fatal("baresip's modules are not below /usr/lib")
	}
	return found[0]
}

// do gives a command and returns where its output begins.
func (b *baresip) do(command string) (mark int) {
	b.t.Helper()
	mark = b.mark()
	if _, err := fmt.Fprintln(b.in, "/"+command); err != nil {
		b.t.Fatalf("baresip: %v", err)
	}
	return mark
}

// wait waits until baresip has said something.
func (b *baresip) wait(ctx context.Context, what string) {
	b.t.Helper()
	if _, err := b.await(ctx, what, 0, func(l string) bool { return strings.Contains(l, what) }); err != nil {
		b.t.Fatal(err)
	}
}

// at is the address at which it takes SIP over a network.
func (b *baresip) at(ctx context.Context, network string) string {
	b.t.Helper()
	mark, end := b.do("sipstat"), " ("+strings.ToUpper(network)+")"
	line, err := b.await(ctx, "its address", mark, func(l string) bool { return strings.HasSuffix(l, end) })
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(strings.TrimSuffix(line, end))
}

// call returns when the call is up.
func (b *baresip) call(ctx context.Context, uri string) {
	b.t.Helper()
	b.do("dial " + uri)
	b.established(ctx)
}

// established awaits a call with the right codec.
func (b *baresip) established(ctx context.Context) {
	b.t.Helper()
	b.wait(ctx, "Call established")
	name, _, _ := strings.Cut(b.codec, "/")
	if !strings.EqualFold(name, "opus") {
		name = strings.ToUpper(name)
	}
	b.wait(ctx, "Set audio encoder: "+name+" ")
}

// press presses keys of its keypad, one after another, as telephone-events.
func (b *baresip) press(ctx context.Context, keys string) {
	b.t.Helper()
	for _, key := range keys {
		mark := b.mark()
		if _, err := fmt.Fprintf(b.in, "%c", key); err != nil {
			b.t.Fatalf("baresip: %v", err)
		}
		end := fmt.Sprintf("send DTMF digit end: '%c'", key)
		if _, err := b.await(ctx, end, mark, func(l string) bool { return strings.Contains(l, end) }); err != nil {
			b.t.Fatal(err)
		}
	}
}

// receives awaits that it was told of keys, in this order and of no other.
func (b *baresip) receives(ctx context.Context, mark int, keys string) {
	b.t.Helper()
	got := ""
	for got != keys {
		line, err := b.await(ctx, "the keys "+keys, mark, func(l string) bool {
			return strings.Contains(l, "received event: '") && strings.Contains(l, "(end=1)")
		})
		if err != nil {
			b.t.Fatalf("%v; it received %q", err, got)
		}
		lines, _ := b.lines()
		mark += slices.Index(lines[mark:], line) + 1
		_, key, _ := strings.Cut(line, "event: '")
		if got += key[:1]; !strings.HasPrefix(keys, got) {
			b.t.Fatalf("it received %q of %q", got, keys)
		}
	}
}

// echo makes it say back what it hears.
func (b *baresip) echo() { b.do("ausrc aubridge,echo") }

// hangup ends the call and baresip.
func (b *baresip) hangup(ctx context.Context) {
	b.t.Helper()
	b.do("hangup")
	b.do("quit")
	b.wait(ctx, "Quit")
	if err := b.end(syscall.Signal(0)); err != nil {
		b.t.Errorf("baresip: %v", err)
	}
}

// heard is what baresip recorded so far, mono, with its rate.
func (b *baresip) heard() (pcm []int16, rate int) {
	files, _ := filepath.Glob(filepath.Join(b.dir, "dump-*-dec.wav"))
	slices.Sort(files)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || len(data) < 44 {
			continue
		}
		more, r := parseWAV(data)
		pcm, rate = append(pcm, more...), r
	}
	return pcm, rate
}

// Hear waits for a tone in what is recorded from now on.
func (b *baresip) Hear(ctx context.Context, freq int) error {
	_, rate := b.heard()
	for rate == 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing recorded: %w", ctx.Err())
		default:
			_, rate = b.heard()
		}
	}
	return hearIn(ctx, func() []int16 { pcm, _ := b.heard(); return pcm }, rate, freq)
}

// parseWAV reads 16 bit PCM of a file that is still written: the sizes in its
// header do not count. It returns the first channel.
func parseWAV(data []byte) (pcm []int16, rate int) {
	channels := 0
	for at := 12; at+8 <= len(data); {
		size := int(binary.LittleEndian.Uint32(data[at+4:]))
		body := data[at+8:]
		switch string(data[at : at+4]) {
		case "fmt ":
			if len(body) < 16 {
				return nil, 0
			}
			channels = int(binary.LittleEndian.Uint16(body[2:]))
			rate = int(binary.LittleEndian.Uint32(body[4:]))
		case "data":
			for i := 0; channels > 0 && i+2*channels <= len(body); i += 2 * channels {
				pcm = append(pcm, int16(binary.LittleEndian.Uint16(body[i:])))
			}
			return pcm, rate
		}
		at += 8 + size
	}
	return nil, rate
}

func TestParseWAV(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.wav")
	want := tone.Sine(440, 16000, 1e8, 0.5)
	if err := tone.WriteWAV(path, 16000, want); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pcm, rate := parseWAV(data)
	if rate != 16000 || !slices.Equal(pcm, want) {
		t.Errorf("%d samples at %d Hz", len(pcm), rate)
	}
	for n := range 60 {
		parseWAV(data[:min(n, len(data))])
	}
}
