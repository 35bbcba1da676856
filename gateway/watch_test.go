package gateway

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// settled is short; whether anything depends on it is seen by -race -count.
const settled = 20 * time.Millisecond

func TestWatchShards(t *testing.T) {
	t.Parallel()
	for name, poll := range map[string]time.Duration{"events": time.Hour, "polling": settled} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			dir := shardsDir(filepath.Join(root, "brewline.toml"))
			ctx, cancel := context.WithCancel(t.Context())
			changed := watchShards(ctx, dir, fingerprint(dir), settled, poll, slog.New(slog.DiscardHandler))
			defer func() {
				cancel()
				for range changed {
				}
			}()
			write := func(name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			await := func(what string) {
				t.Helper()
				select {
				case <-changed:
				case <-time.After(10 * time.Second):
					t.Fatalf("not noticed: %s", what)
				}
			}
			mkdir := func() {
				t.Helper()
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			write("neighbour.toml", "x")
			mkdir()
			write("shards.d/note.txt", "no shard")
			write("shards.d/a.toml", "a")
			await("a first file")
			write("shards.d/a.toml", "a") // the same again
			write("shards.d/.a.toml.swp", "x")
			write("shards.d/.#a.toml", "x")
			write("shards.d/b.toml", "b")
			await("a second file")
			write("shards.d/b.toml", "B")
			await("another content")
			if err := os.Rename(filepath.Join(dir, "b.toml"), filepath.Join(dir, "b.off")); err != nil {
				t.Fatal(err)
			}
			await("a file set aside")
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			await("the folder gone")
			mkdir()
			write("shards.d/a.toml", "a")
			await("the folder back")
			// As mounted from a ConfigMap: a link to a folder is exchanged.
			for _, v := range []string{"one", "two"} {
				if err := os.Mkdir(filepath.Join(root, v), 0o700); err != nil {
					t.Fatal(err)
				}
				write(v+"/c.toml", v)
			}
			if err := os.Symlink("../one", filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("..data/c.toml", filepath.Join(dir, "c.toml")); err != nil {
				t.Fatal(err)
			}
			await("a linked file")
			if err := os.Symlink("../two", filepath.Join(dir, "..next")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
			await("the link exchanged")
		})
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	none := fingerprint(filepath.Join(dir, "none"))
	if fingerprint(dir) != none {
		t.Error("an empty folder is not as none")
	}
	seen := map[string]bool{none: true}
	for _, files := range []map[string]string{{"a.toml": ""}, {"a.toml": "b.toml"}, {"a.toml": "", "b.toml": ""}, {"b.toml": ""}} {
		d := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(d, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if seen[fingerprint(d)] {
			t.Errorf("%v is as another", files)
		}
		seen[fingerprint(d)] = true
	}
}
