package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"brewline/config"
)

const (
	// watchSettle is how long the files must be left alone before they are
	// read: editors and copying take several steps.
	watchSettle = 300 * time.Millisecond
	// watchPoll is how often the files are looked at in any case: some file
	// systems tell nobody, and a folder that is replaced tells no more.
	watchPoll = 15 * time.Second
)

// shardsDir is the folder of shards beside a configuration file.
func shardsDir(path string) string { return filepath.Join(filepath.Dir(path), "shards.d") }

// watchShards sends on the returned channel when what is in the folder shards.d
// has another fingerprint than last, and so on until ctx ends. Then the channel
// is closed.
func watchShards(ctx context.Context, dir, last string, settle, poll time.Duration, log *slog.Logger) <-chan struct{} {
	changed := make(chan struct{})
	var events chan fsnotify.Event
	var errs chan error
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("changes in shards.d are noticed late", "err", err, "after", poll)
	} else {
		events, errs = w.Events, w.Errors
		_ = w.Add(filepath.Dir(dir)) // whether it is there or not is seen by polling
		_ = w.Add(dir)
	}
	go func() {
		defer close(changed)
		if w != nil {
			defer w.Close()
		}
		tick := time.NewTicker(poll)
		defer tick.Stop()
		quiet := time.NewTimer(settle)
		quiet.Stop()
		defer quiet.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-events:
				switch {
				case e.Name == dir:
					if e.Has(fsnotify.Create) {
						_ = w.Add(dir)
					}
				case filepath.Dir(e.Name) != dir:
					continue // a neighbour of the folder
				}
				quiet.Reset(settle)
				continue
			case err := <-errs: // events were lost
				log.Debug("watching shards.d", "err", err)
				quiet.Reset(settle)
				continue
			case <-tick.C:
			case <-quiet.C:
			}
			now := fingerprint(dir)
			if now == last {
				continue
			}
			last = now
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return changed
}

// maxShardFile bounds what is read of one file, in bytes; a larger one is no
// configuration.
const maxShardFile = 1 << 20

// fingerprint stands for names and contents of the files of a folder that make
// shards.
func fingerprint(dir string) string {
	h := sha256.New()
	files, err := config.ShardFiles(dir) // sorted
	if err != nil {
		io.WriteString(h, err.Error())
	}
	for _, file := range files {
		io.WriteString(h, file+"\x00")
		if f, err := os.Open(file); err == nil {
			io.Copy(h, io.LimitReader(f, maxShardFile+1))
			f.Close()
		}
		io.WriteString(h, "\x00")
	}
	return hex.EncodeToString(h.Sum(nil))
}
