package keywright

import (
	"context"
)

// flight is a page that has been asked for.
type flight struct {
	at   position
	meta Meta // of this page; the caller's is written when the page is wanted
	done chan struct{}
	raw  *fetched
	err  error
}

// wait ends with the context of the fetch, and tells the caller about it.
func (f *flight) wait(caller *Meta) {
	<-f.done
	if caller != nil {
		*caller = f.meta
	}
}

// land waits for a page that nobody wants any more.
func (f *flight) land() {
	f.wait(nil)
	if f.raw != nil {
		f.raw.cl.release()
	}
}

// depart asks for the page at a position.
func (l *lister[T, P]) depart(ctx context.Context, cfg callConfig, at position) *flight {
	f := &flight{at: at, done: make(chan struct{})}
	if cfg.meta != nil {
		cfg.meta = &f.meta
	}
	go func() {
		defer close(f.done)
		f.raw, f.err = l.fetch(ctx, cfg, at)
	}()
	return f
}

// aheadPages asks for the next page by cursor before the current one is
// decoded: the cursor is read from the tail of the body.
type aheadPages[T any, P resource[T]] struct {
	l      *lister[T, P]
	cfg    callConfig
	ctx    context.Context
	cancel context.CancelFunc
	flying *flight
	last   bool
}

func newAheadPages[T any, P resource[T]](ctx context.Context, l *lister[T, P], cfg callConfig) *aheadPages[T, P] {
	ctx, cancel := context.WithCancel(ctx)
	s := &aheadPages[T, P]{l: l, cfg: cfg, ctx: ctx, cancel: cancel}
	s.flying = l.depart(ctx, cfg, l.start())
	return s
}

func (s *aheadPages[T, P]) next(ctx context.Context) (*Page[T], error) {
	if s.last {
		return nil, nil
	}
	f := s.flying
	f.wait(s.cfg.meta)
	s.flying = nil
	if f.err != nil {
		return nil, f.err
	}
	at := f.at
	id, more := f.raw.body.Last()
	ahead := more && id != "" && id != at.after && id != f.raw.cl.token.Reveal()
	if ahead {
		s.flying = s.l.depart(s.ctx, s.cfg, position{after: id, widen: at.widen})
	}
	page, err := s.l.decode(s.cfg, f.raw)
	if err != nil {
		return nil, err
	}
	if len(page.Items) == 0 && page.HasMore && at.widen == 0 {
		// Nothing but its own cursor: the same page again, one item wider.
		s.drop()
		at.widen = 1
		s.flying = s.l.depart(s.ctx, s.cfg, at)
		return s.next(ctx)
	}
	s.last = !ahead
	return page, nil
}

func (s *aheadPages[T, P]) drop() {
	if s.flying != nil {
		s.flying.land()
		s.flying = nil
	}
}

func (s *aheadPages[T, P]) stop() {
	s.cancel()
	s.drop()
}

// offsetPages keeps several pages by offset in flight and hands them out in
// order. The first page shows how large pages really are and how many there
// will be; where a later page comes back shorter, what it lacks is fetched
// before the next one is handed out.
type offsetPages[T any, P resource[T]] struct {
	l      *lister[T, P]
	cfg    callConfig
	ctx    context.Context
	cancel context.CancelFunc
	width  int

	flying []*flight // in order
	at     int       // offset of the next page to hand out
	ask    int       // offset of the next page to ask for
	step   int       // items a page holds
	total  int
	first  bool
	over   bool
}

func newOffsetPages[T any, P resource[T]](ctx context.Context, l *lister[T, P], cfg callConfig, width int) *offsetPages[T, P] {
	ctx, cancel := context.WithCancel(ctx)
	return &offsetPages[T, P]{l: l, cfg: cfg, ctx: ctx, cancel: cancel, width: width, first: true, at: l.offset}
}

func (s *offsetPages[T, P]) next(context.Context) (*Page[T], error) {
	if s.over {
		return nil, nil
	}
	page, err := s.get()
	if err != nil {
		return nil, err
	}
	s.at += len(page.Items)
	s.over = !page.HasMore
	if s.first {
		s.first = false
		s.step, s.total, s.ask = len(page.Items), page.TotalCount, s.at
	}
	s.fill()
	return page, nil
}

// get returns the page at s.at: the first in flight if that is where it
// begins, or one of its own.
func (s *offsetPages[T, P]) get() (*Page[T], error) {
	for len(s.flying) > 0 && s.flying[0].at.offset < s.at {
		s.flying[0].land()
		s.flying = s.flying[1:]
	}
	if len(s.flying) == 0 || s.flying[0].at.offset > s.at {
		return s.l.page(s.ctx, s.cfg, position{offset: s.at})
	}
	f := s.flying[0]
	s.flying = s.flying[1:]
	if f.wait(s.cfg.meta); f.err != nil {
		return nil, f.err
	}
	return s.l.decode(s.cfg, f.raw)
}

// fill asks for pages until enough are in flight.
func (s *offsetPages[T, P]) fill() {
	for !s.over && s.step > 0 && len(s.flying) < s.width && s.ask < s.total {
		s.flying = append(s.flying, s.l.depart(s.ctx, s.cfg, position{offset: s.ask}))
		s.ask += s.step
	}
}

func (s *offsetPages[T, P]) stop() {
	s.cancel()
	for _, f := range s.flying {
		f.land()
	}
}
