package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/prosodytest"
)

// outages are how long each of the Prosodys is down.
var outages = []time.Duration{0, 0, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 8 * time.Second, 12 * time.Second}

// restartLimit is how soon a presence must be back.
const restartLimit = 10 * time.Second

// benchRestart measures how soon after a Prosody is back its Jicofo sees the
// gateway in the brewery again.
func benchRestart(ctx context.Context) (err error) {
	tb := &bench{}
	defer tb.clean()
	defer func() { err = errors.Join(err, tb.recover(recover())) }()
	w := &world{}
	defer w.close()
	if w.dir, err = os.MkdirTemp("", "brewline-bench-"); err != nil {
		return err
	}
	type site struct {
		prosody *prosodytest.Server
		focus   *jicofo.Jicofo
	}
	var sites []site
	var config strings.Builder
	fmt.Fprintf(&config, "[gateway]\nname = \"bench\"\n[http]\nlisten = \"127.0.0.1:0\"\n[sip]\nlisten = [\"udp://127.0.0.1:0\"]\n[media]\nbind = \"127.0.0.1\"\n"+
		"[[trunk]]\nname = \"ipbx\"\nmatch = [\"192.0.2.1\"]\n")
	for i := range outages {
		domain := fmt.Sprintf("s%d.test", i)
		p := prosodytest.Start(tb, prosodytest.Options{Domain: domain, RestrictRooms: true, Accounts: map[string]string{"gateway": "secret"},
			Admins: []string{"focus@focus." + domain}})
		brewery := "jigasibrewery@internal.auth." + domain
		j, err := jicofo.Start(ctx, jicofo.Options{ComponentAddr: p.ComponentAddr(), Domain: domain, Secret: p.ComponentSecret,
			Brewery: brewery, ReconnectInterval: 50 * time.Millisecond})
		if err != nil {
			return err
		}
		tb.Cleanup(func() { _ = j.Close() })
		sites = append(sites, site{p, j})
		fmt.Fprintf(&config, "[[deployment]]\nname = %q\ndomain = %[1]q\n[[shard]]\nname = %[1]q\ndeployment = %[1]q\nurl = %q\nusername = \"gateway\"\npassword = \"secret\"\nbrewery = %q\n",
			domain, p.BOSHURL(), brewery)
	}
	path := filepath.Join(w.dir, "brewline.toml")
	if err := os.WriteFile(path, []byte(config.String()), 0o600); err != nil {
		return err
	}
	if w.serve, err = spawn(self(), "-role", "serve", "-c", path, "-log", w.logFile()); err != nil {
		return err
	}
	var up serveSetup
	if err := w.serve.hear(&up); err != nil {
		return w.failed(err)
	}
	seen := func(s site) bool { return len(s.focus.Gateways()) > 0 }
	within, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for _, s := range sites {
		if err := await(within, "the gateway in every brewery", func() bool { return seen(s) }); err != nil {
			return w.failed(err)
		}
	}
	// Sessions that have not lasted are tried again later and later.
	time.Sleep(restartLimit)
	took := make([]float64, len(sites))
	errs := make([]error, len(sites))
	var wg sync.WaitGroup
	for i, s := range sites {
		wg.Go(func() {
			defer func() { errs[i] = errors.Join(errs[i], tb.recover(recover())) }()
			s.prosody.Kill()
			errs[i] = await(within, "Jicofo noticed", func() bool { return !seen(s) })
			time.Sleep(outages[i]) // it is down
			s.prosody.Restart()
			began := time.Now()
			errs[i] = errors.Join(errs[i], await(within, "the gateway back in the brewery", func() bool { return seen(s) }))
			took[i] = time.Since(began).Seconds()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return w.failed(err)
	}
	figure("restart.presence.median", median(took), "s")
	figure("restart.presence.longest", quantile(took, 1), "s")
	for i, d := range outages {
		note("after %v without Prosody: %.2f s", d, took[i])
	}
	if longest := quantile(took, 1); longest > restartLimit.Seconds() {
		note("more than the %v that it may be", restartLimit)
	}
	return nil
}

// bench is what the helpers of tests want to be given.
type bench struct {
	testing.TB // for what cannot be implemented
	mu         sync.Mutex
	cleanups   []func()
}

// failure is what Fatal and Skip end with.
type failure struct{ text string }

func (b *bench) Helper()                        {}
func (b *bench) Failed() bool                   { return false }
func (b *bench) Logf(format string, a ...any)   { note(format, a...) }
func (b *bench) Fatalf(format string, a ...any) { panic(failure{fmt.Sprintf(format, a...)}) }
func (b *bench) Fatal(a ...any)                 { panic(failure{fmt.Sprint(a...)}) }
func (b *bench) Skip(a ...any)                  { panic(failure{fmt.Sprint(a...)}) }

func (b *bench) Cleanup(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanups = append(b.cleanups, f)
}

func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp("", "brewline-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// clean runs what Cleanup was given, the last first.
func (b *bench) clean() {
	for i := len(b.cleanups) - 1; i >= 0; i-- {
		b.cleanups[i]()
	}
}

// recover makes an error of Fatal and Skip.
func (b *bench) recover(v any) error {
	switch v := v.(type) {
	case nil:
		return nil
	case failure:
		return errors.New(v.text)
	}
	panic(v)
}
