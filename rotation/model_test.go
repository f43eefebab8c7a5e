package rotation_test

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keywright/keywright/rotation"
)

// chapter is one life of the program, and what happens to it.
type chapter struct {
	Do       string // "rotate", "resume" or "rollback"
	Trouble  int    // of the next call that issues a token
	Kill     int    // the step that it is killed at; 0: none
	Cut      int    // with a kill, the state that a power cut leaves; negative: no cut
	DiskStep int    // the step at which the disk fails; 0: none
	DiskErr  syscall.Errno
	DiskHeal bool          // it fails once
	Pass     time.Duration // before the next life
}

func (c chapter) String() string {
	return fmt.Sprintf("{%s, %s, kill %d, cut %d, disk %d %d %t, pass %s}", c.Do, troubles[c.Trouble].name, c.Kill, c.Cut, c.DiskStep, c.DiskErr, c.DiskHeal, c.Pass)
}

// drawChapter draws a life; most are not disturbed in every way at once.
func drawChapter(t *rapid.T, s strategyName) chapter {
	maybe := func(label string, n int) bool { return rapid.IntRange(0, n).Draw(t, label) == 0 }
	c := chapter{Do: rapid.SampledFrom([]string{"rotate", "rotate", "resume", "rollback"}).Draw(t, "do"), Cut: -1}
	if maybe("trouble?", 1) {
		c.Trouble = rapid.IntRange(0, len(troubles)-1).Draw(t, "trouble")
		if troubles[c.Trouble].loose && (s == overlap || s == inPlace) {
			c.Trouble = 0 // the provider itself would lock everybody out
		}
	}
	if maybe("kill?", 1) {
		c.Kill = rapid.IntRange(1, 420).Draw(t, "kill")
		if maybe("cut?", 1) {
			c.Cut = rapid.IntRange(0, 1<<16).Draw(t, "cut")
		}
	}
	if maybe("disk?", 3) {
		c.DiskStep = rapid.IntRange(1, 420).Draw(t, "disk")
		c.DiskErr = rapid.SampledFrom([]syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS}).Draw(t, "errno")
		c.DiskHeal = rapid.Bool().Draw(t, "heal")
	}
	passes := []time.Duration{0, time.Second, 2 * time.Minute, time.Hour, 7 * time.Hour}
	if s == overlap {
		passes = passes[:4] // it must be resumed within the window
	}
	c.Pass = rapid.SampledFrom(passes).Draw(t, "pass")
	return c
}

// play lives a life.
func (c chapter) play(t *testing.T, w *world) error {
	if f := troubles[c.Trouble].fault; f != nil {
		w.inject(*f(w.strategy.issues()))
	}
	p := w.start(t.Context(), c.Kill)
	if c.DiskStep > 0 {
		n := 0
		p.disks = func(string, string, bool) error {
			if n++; n == c.DiskStep || n > c.DiskStep && !c.DiskHeal {
				return c.DiskErr
			}
			return nil
		}
	}
	var err error
	switch c.Do {
	case "rotate":
		_, err = p.rotate()
	case "resume":
		_, err = p.engine().Resume(p.ctx, p.job())
	case "rollback":
		w.mu.Lock()
		clear(w.held) // the one way for a sink to go back
		w.mu.Unlock()
		_, err = p.engine().Rollback(p.ctx, p.job())
	}
	p.cancel()
	if err != nil {
		p.say("%v\n", err)
	}
	w.clear()
	if c.Kill > 0 && p.steps >= c.Kill && c.Cut >= 0 {
		w.cutPower(c.Cut)
	}
	w.twice = w.twice || troubles[c.Trouble].loose
	var refused *rotation.RefusedError
	if errors.As(err, &refused) && refused.Reason != rotation.ReasonWindow && refused.Reason != rotation.ReasonSink {
		return err
	}
	if errors.Is(err, rotation.ErrStuck) && c.DiskStep == 0 && !w.twice {
		return err
	}
	pass(t.Context(), c.Pass)
	w.note()
	return w.problem
}

// modelRuns is how many sequences are tried. The flag of rapid wins.
func modelRuns() int {
	if raceDetector {
		return 400
	}
	return 20_000
}

// TestModel plays random lives: rotations, resumptions and roll-backs, with
// faults of the provider, kills, power cuts and failing disks, and then one
// that is not disturbed. The model of a key is simple: there is always a token
// that is accepted, every sink has it, and in the end it is a new one.
func TestModel(t *testing.T) {
	t.Parallel()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		require.NoError(t, f.Value.Set(strconv.Itoa(modelRuns()/len(strategies))))
	}
	for _, s := range strategies {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			var options []variant
			for _, v := range variants {
				if (v.only == nil || v.only(s)) && v.name != "without rotate" {
					options = append(options, v)
				}
			}
			start, sequences, lives := time.Now(), 0, 0
			rapid.Check(t, func(rt *rapid.T) {
				v := options[rapid.IntRange(0, len(options)-1).Draw(rt, "variant")]
				chapters := make([]chapter, rapid.IntRange(1, 5).Draw(rt, "lives"))
				for i := range chapters {
					chapters[i] = drawChapter(rt, s)
				}
				sequences++
				lives += len(chapters)
				if err := playAll(t, s, v, chapters); err != nil {
					rt.Fatalf("%s, %s, %v: %v", s, v.name, chapters, err)
				}
			})
			t.Logf("%d sequences of %d lives in %s", sequences, lives, time.Since(start).Round(time.Millisecond))
		})
	}
}

// playAll plays lives in a world of their own, and then an undisturbed one.
func playAll(t *testing.T, s strategyName, v variant, chapters []chapter) (err error) {
	w, err := newWorld(s, v.options...)
	if err != nil {
		return err
	}
	synctest.Test(t, func(t *testing.T) {
		defer w.close()
		if err = w.seed(); err != nil {
			return
		}
		for _, c := range chapters {
			if err = c.play(t, w); err != nil {
				return
			}
		}
		// What is under way is finished, and then there is a new rotation.
		for range restarts {
			p := w.start(t.Context(), 0)
			if _, err = p.rotate(); errors.Is(err, rotation.ErrStuck) {
				w.held = make(map[string][]string)
				p = w.start(t.Context(), 0)
				_, err = p.engine().Rollback(p.ctx, p.job())
				p.cancel()
			}
			if err == nil || refusedFor(err, rotation.ReasonWindow) || w.problem != nil {
				break
			}
		}
		if err = w.problem; err != nil {
			return
		}
		pass(t.Context(), 7*time.Hour)
		before := w.inSinks()[0]
		if err = (story{strategy: s, variant: v}).live(t, w).err; err == nil && w.inSinks()[0] == before {
			err = errors.New("the last rotation has rotated nothing")
		}
	})
	return err
}
