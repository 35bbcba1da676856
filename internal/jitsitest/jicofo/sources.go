package jicofo

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Source is a signalled media source.
type Source struct {
	SSRC              uint32
	Name, MSID, Owner string
	Video             bool
}

// maxSources is how many SSRCs a participant may signal.
const maxSources = 20

// bridgeOwner owns the bridge's own sources.
const bridgeOwner = "jvb"

// compactSource is a source in a json-message; a participant's sources are
// [video, video groups, audio, audio groups].
type compactSource struct {
	SSRC      uint32 `json:"s"`
	Name      string `json:"n,omitempty"`
	MSID      string `json:"m,omitempty"`
	VideoType string `json:"v,omitempty"`
}

// parseSources reads the sources of a Jingle element, XML and JSON. They
// belong to owner whatever it says.
func parseSources(jingle *element, owner string) ([]Source, error) {
	var out []Source
	for _, content := range jingle.children("content") {
		d := content.child("", "description")
		video := content.attr("name") == "video" || d.attr("media") == "video"
		for _, x := range d.children("source") {
			ssrc, err := strconv.ParseUint(x.attr("ssrc"), 10, 32)
			if err != nil || ssrc == 0 {
				return nil, fmt.Errorf("SSRC %q is out of range", x.attr("ssrc"))
			}
			s := Source{SSRC: uint32(ssrc), Name: x.attr("name"), Owner: owner, Video: video}
			for _, p := range x.children("parameter") {
				if p.attr("name") == "msid" {
					s.MSID = p.attr("value")
				}
			}
			out = append(out, s)
		}
	}
	if m := jingle.child(nsJitmeet, "json-message"); m != nil {
		more, err := parseCompact(m.Text, owner)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	for i := range out {
		if out[i].Name == "" {
			out[i].Name = owner + "-a0"
			if out[i].Video {
				out[i].Name = owner + "-v0"
			}
		}
	}
	return out, nil
}

func parseCompact(text, owner string) ([]Source, error) {
	var m struct {
		Sources map[string][]json.RawMessage `json:"sources"`
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("sources: %w", err)
	}
	var out []Source
	for _, lists := range m.Sources {
		for _, i := range []int{0, 2} {
			if i >= len(lists) {
				continue
			}
			var list []compactSource
			if err := json.Unmarshal(lists[i], &list); err != nil {
				return nil, fmt.Errorf("sources: %w", err)
			}
			for _, s := range list {
				if s.SSRC == 0 {
					return nil, errors.New("SSRC 0 is out of range")
				}
				out = append(out, Source{SSRC: s.SSRC, Name: s.Name, MSID: s.MSID, Owner: owner, Video: i == 0})
			}
		}
	}
	return out, nil
}

// conflict says why a participant may not add sources: an SSRC is used once
// in a conference, an msid by one source.
func (c *conference) conflict(p *participant, add []Source) error {
	if len(p.sources)+len(add) > maxSources {
		return fmt.Errorf("more than %d SSRCs", maxSources)
	}
	var used []Source
	for _, m := range c.members {
		used = append(used, m.sources...)
	}
	for _, s := range add {
		for _, u := range used {
			if u.SSRC == s.SSRC {
				return fmt.Errorf("SSRC is already used: %d", s.SSRC)
			}
			if s.MSID != "" && u.MSID == s.MSID {
				return fmt.Errorf("msid is already used: %s", s.MSID)
			}
		}
		used = append(used, s)
	}
	return nil
}

// audioSenders counts the members with audio sources.
func (c *conference) audioSenders() int {
	n := 0
	for _, m := range c.members {
		if slices.ContainsFunc(m.sources, func(s Source) bool { return !s.Video }) {
			n++
		}
	}
	return n
}

// wants says whether sources are signalled to a participant at all.
func (p *participant) wants(s Source) bool {
	return s.Owner == bridgeOwner || !p.has(featureRewrite) && (!s.Video && p.has(featureAudio) || s.Video && p.has(featureVideo))
}

// sourceElement is a source in XML. The owner comes out in lower case, as it
// passes through a JID in Jicofo.
func sourceElement(s Source) *element {
	x := el(nsSSMA, "source", "ssrc", strconv.FormatUint(uint64(s.SSRC), 10), "name", s.Name)
	x.add(el(nsJitmeet, "ssrc-info", "owner", strings.ToLower(s.Owner)))
	if s.MSID != "" {
		x.add(el(nsRTP, "parameter", "name", "msid", "value", s.MSID))
	}
	return x
}

// compactMessage is the sources as <json-message/>.
func compactMessage(sources []Source) *element {
	m := map[string][]any{}
	for _, s := range sources {
		lists := m[s.Owner]
		if lists == nil {
			lists = []any{[]compactSource{}, []any{}, []compactSource{}}
			m[s.Owner] = lists
		}
		i := 2
		if s.Video {
			i = 0
		}
		lists[i] = append(lists[i].([]compactSource), compactSource{SSRC: s.SSRC, Name: s.Name, MSID: s.MSID})
	}
	text, _ := json.Marshal(map[string]any{"sources": m}) // cannot fail
	return el(nsJitmeet, "json-message").text(string(text))
}

// sourceContents is the sources as Jingle contents, for source-add and
// source-remove.
func sourceContents(sources []Source) []*element {
	var contents []*element
	for _, media := range []string{"audio", "video"} {
		d := el(nsRTP, "description", "media", media)
		for _, s := range sources {
			if s.Video == (media == "video") {
				d.add(sourceElement(s))
			}
		}
		if len(d.Kids) > 0 {
			contents = append(contents, el("", "content", "name", media).add(d))
		}
	}
	return contents
}
