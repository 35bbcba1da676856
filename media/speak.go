package media

import "time"

// PlayOptions say how a prompt is played.
type PlayOptions struct {
	// Repeat plays the prompt again this long after its end, until StopPrompt;
	// 0 plays it once.
	Repeat time.Duration
	// Done is called once when the prompt is over, whether it came to its end,
	// was stopped, or was replaced by another. It runs on a pacer's worker or
	// on the caller of the method that ended the prompt, must not block, and may
	// call the Bridge.
	Done func()
}

// playing is a prompt that is being played.
type playing struct {
	prompt Prompt
	o      PlayOptions
	rate   int // Hz, of pcm; 0: not loaded
	pcm    []int16
	pos    int
	wait   int // samples until it is played again
}

// load gets the prompt's PCM at another rate.
func (p *playing) load(rate int) {
	if p.rate == rate {
		return
	}
	if p.rate != 0 {
		p.pos = int(int64(p.pos) * int64(rate) / int64(p.rate))
		p.wait = int(int64(p.wait) * int64(rate) / int64(p.rate))
	}
	p.rate, p.pcm = rate, promptPCM(p.prompt, rate)
	p.pos = min(p.pos, len(p.pcm))
}

// Play speaks a prompt to the phone, over the conference, which is lowered
// meanwhile. It takes the place of a prompt that is being played. A prompt
// begins when there is a phone leg to hear it; while the phone is held it goes
// on unheard.
func (b *Bridge) Play(p Prompt, o PlayOptions) {
	b.mu.Lock()
	rate := b.codec.Rate
	b.mu.Unlock()
	pcm := promptPCM(p, max(rate, 8000)) // decodes it the first time: not between ticks

	b.mu.Lock()
	defer b.unlock()
	b.stopPrompt()
	n := &playing{prompt: p, o: o}
	if b.closed || pcm == nil {
		b.prompt = n
		b.stopPrompt()
		return
	}
	if b.phone.conn != nil {
		n.load(b.codec.Rate)
	}
	b.prompt = n
}

// StopPrompt ends the prompt that is being played, if any.
func (b *Bridge) StopPrompt() {
	b.mu.Lock()
	defer b.unlock()
	b.stopPrompt()
}

func (b *Bridge) stopPrompt() {
	if b.prompt == nil {
		return
	}
	if done := b.prompt.o.Done; done != nil {
		b.events = append(b.events, event{done: done})
	}
	b.prompt = nil
}

// speak mixes the prompt into pcm, of which missed packets before were not
// played. It returns false if the prompt had nothing to say.
func (b *Bridge) speak(pcm []int16, missed int) bool {
	p := b.prompt
	skip := missed * len(pcm)
	if p.wait > 0 {
		p.wait = max(p.wait-len(pcm)-skip, 0)
		return false
	}
	p.pos = min(p.pos+skip, len(p.pcm))
	n := min(len(pcm), len(p.pcm)-p.pos)
	mix := b.down.mix
	for i, v := range pcm {
		mix[i] = int32(v) >> duck
	}
	for i, v := range p.pcm[p.pos : p.pos+n] {
		mix[i] += int32(v)
	}
	saturate(pcm, mix)
	if p.pos += n; p.pos == len(p.pcm) {
		if p.o.Repeat > 0 {
			p.pos, p.wait = 0, int(p.o.Repeat*time.Duration(p.rate)/time.Second)
		} else {
			b.stopPrompt()
		}
	}
	return true
}
