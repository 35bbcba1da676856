package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
)

var (
	// home matches a path that exists on one machine only.
	home = regexp.MustCompile(`(?:^|[^\w.}/-])/(?:root|home|work|Users)/\w`)
	// registry matches the hosts from which packages come.
	registry = regexp.MustCompile(`\b(?:proxy|sum|index)\.golang\.(?:org|cn)\b|\bgoproxy\.\w|\bgoproxy=|\bGOPROXY=`)
	// document matches the name of a Markdown file, and not that in an address.
	document = regexp.MustCompile(`(^|[^\w./:-])((?:[\w.-]+/|\.\./)*[\w-][\w.-]*\.md)\b`)
)

// maxText is the size above which a file is taken for data.
const maxText = 4 << 20

// wording returns a line for every place in a file of the repository that
// names something outside of it.
func wording() (offences []string, err error) {
	out, err := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return nil, fmt.Errorf("list the files of the repository: %w", err)
	}
	files := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	docs := map[string]bool{}
	for _, f := range files {
		if strings.HasSuffix(f, ".md") {
			docs[path.Base(f)] = true
		}
	}
	for _, f := range files {
		info, err := os.Lstat(f)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxText {
			continue // deleted and not yet committed, a link, or data
		}
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) < 0 {
			offences = append(offences, inspect(f, string(text), docs)...)
		}
	}
	return offences, nil
}

// inspect looks at one file; docs are the names of the documents there are.
func inspect(file, text string, docs map[string]bool) (offences []string) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		say := func(what string) { offences = append(offences, fmt.Sprintf("%s:%d: %s", file, n, what)) }
		if home.MatchString(line) {
			say("names a path of one machine")
		}
		if registry.MatchString(line) {
			say("names the host of a registry")
		}
		for _, m := range document.FindAllStringSubmatch(line, -1) {
			if !docs[path.Base(m[2])] {
				say("names " + m[2] + ", which is not part of the repository")
			}
		}
	}
	return offences
}
