package keywright

import (
	"context"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/keywright/keywright/internal/wire"
)

// Page is one page of a list.
type Page[T any] struct {
	// Items are the page's resources, in the provider's order.
	Items []*T
	// HasMore says that Next will find another page.
	HasMore bool
	// TotalCount is the provider's count of all matches, -1 if it gave none.
	TotalCount int

	next func(context.Context) (*Page[T], error)
}

// Next asks for the page after this one. After the last page it returns
// [io.EOF], and [ErrPaginationLoop] if the provider does not move on.
func (p *Page[T]) Next(ctx context.Context) (*Page[T], error) {
	if p == nil || p.next == nil || !p.HasMore {
		return nil, io.EOF
	}
	return p.next(ctx)
}

// Collect gathers the items of an iterator, at most limit of them: if it
// returns that many there may be more. On an error it returns what it has.
func Collect[T any](seq iter.Seq2[T, error], limit int) ([]T, error) {
	if limit < 1 {
		return nil, &ParamError{Op: "collect", Field: "limit", Reason: "must be 1 or greater"}
	}
	var out []T
	for v, err := range seq {
		if err != nil {
			return out, err
		}
		if out = append(out, v); len(out) == limit {
			break
		}
	}
	return out, nil
}

// Sizes of pages.
const (
	maxRicloudLimit = 1000
	maxAceDataLimit = 100
	allLimit        = 100 // what All asks for, unless told otherwise
)

// lister is a list of one resource under one set of filters. It is immutable
// but for inclusive, which each use starts afresh.
type lister[T any, P resource[T]] struct {
	s       *service
	op      *operation
	path    string
	filters url.Values
	opts    []CallOption
	limit   int // 0: the provider's default
	offset  int // of the first page, where pages go by offset
	paged   paging
	// narrow completes the filters before the first request; it may look
	// things up.
	narrow func(context.Context, callConfig, url.Values) error
}

// paging is how a provider's lists go on.
type paging int

const (
	byCursor paging = iota // after_id; may be inclusive
	byOffset
)

func (p paging) maxLimit() int {
	if p == byOffset {
		return maxAceDataLimit
	}
	return maxRicloudLimit
}

// position is where a page starts.
type position struct {
	after  string // by cursor: the id before the page; "" for the first page
	offset int
	widen  int // one when the provider repeats the cursor's own item
}

// begin checks the list's parameters and completes them.
func (l *lister[T, P]) begin(ctx context.Context) (*lister[T, P], callConfig, error) {
	if l.s == nil || l.s.c == nil {
		return nil, callConfig{}, ErrNotInitialized
	}
	cfg, err := l.s.c.callOptions(ctx, l.op, l.opts)
	if err != nil {
		return nil, cfg, err
	}
	switch {
	case l.limit < 0 || l.limit > l.paged.maxLimit():
		return nil, cfg, &ParamError{Op: l.op.name, Field: "limit", Reason: "must be between 1 and " + itoa(l.paged.maxLimit()) + ", or 0 for the default"}
	case l.offset < 0:
		return nil, cfg, &ParamError{Op: l.op.name, Field: "offset", Reason: "must be 0 or greater"}
	case l.paged == byCursor && cfg.parallel > 1:
		return nil, cfg, &ParamError{Op: l.op.name, Field: "parallel", Reason: "pages of this list go by cursor; use WithPrefetch"}
	}
	ready := *l
	ready.filters = url.Values{}
	maps.Copy(ready.filters, l.filters)
	if l.narrow != nil {
		if err := l.narrow(ctx, cfg, ready.filters); err != nil {
			return nil, cfg, err
		}
	}
	return &ready, cfg, nil
}

// start is where the first page begins.
func (l *lister[T, P]) start() position {
	return position{after: l.filters.Get("after_id"), offset: l.offset}
}

// list returns the first page.
func (l lister[T, P]) list(ctx context.Context) (*Page[T], error) {
	ready, cfg, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	return ready.page(ctx, cfg, ready.start())
}

// fetched is a page that has arrived but is not decoded.
type fetched struct {
	cl   *call
	body wire.Page
	at   position
}

func (l *lister[T, P]) fetch(ctx context.Context, cfg callConfig, at position) (*fetched, error) {
	q := make(url.Values, len(l.filters)+2)
	maps.Copy(q, l.filters)
	if l.limit > 0 {
		q.Set("limit", strconv.Itoa(min(l.limit+at.widen, l.paged.maxLimit())))
	}
	if at.after != "" {
		q.Set("after_id", at.after)
	}
	if at.offset > 0 {
		q.Set("offset", strconv.Itoa(at.offset))
	}
	r := &request{op: l.op, path: l.path, query: q.Encode()}
	cl, err := l.s.c.send(ctx, r, cfg)
	if err != nil {
		return nil, err
	}
	body, bad := wire.OpenPage(cl.data())
	if bad != nil {
		return nil, l.refuse(cl, bad)
	}
	return &fetched{cl, body, at}, nil
}

func (l *lister[T, P]) refuse(cl *call, bad *wire.Error) error {
	defer cl.release()
	return cl.decodeError(fate{outcome: Rejected}, bad.Path, bad.Want, bad.Got)
}

// decode reads a page that has arrived.
func (l *lister[T, P]) decode(cfg callConfig, f *fetched) (*Page[T], error) {
	defer f.cl.release()
	p := &Page[T]{}
	env, bad := f.body.Each(func(o *wire.Object) {
		v := P(new(T))
		v.decode(o)
		switch {
		case v.ident().isZero():
			o.Key = nil
			o.Fatal("an item with an id", "one without")
		case len(p.Items) > l.paged.maxLimit(): // one more is the cursor's own item
			o.Key = nil
			o.Fatal("at most "+itoa(l.paged.maxLimit())+" items", "more")
		}
		p.Items = append(p.Items, v)
	})
	if bad != nil {
		return nil, l.refuse(f.cl, bad)
	}
	if foreign(env.URL, l.s.c.base) {
		return nil, l.refuse(f.cl, &wire.Error{Path: "url", Want: "a path of this origin", Got: "another host"})
	}
	arrived := len(p.Items)
	p.TotalCount = env.Total
	next := f.at
	switch {
	case arrived == 0: // has_more or not, there is nothing to go on from
	case l.paged == byOffset:
		next.offset += arrived
		p.HasMore = env.Total < 0 || next.offset < env.Total
	default:
		p.HasMore = env.HasMore
		next.after = l.cursor(p.Items[arrived-1])
		if f.at.after != "" && l.cursor(p.Items[0]) == f.at.after {
			p.Items = p.Items[1:] // the provider's cursor is inclusive
			next.widen = 1
		}
	}
	if next.after != "" && next.after == f.cl.token.Reveal() {
		return nil, l.refuse(f.cl, &wire.Error{Path: "id", Want: "an id", Got: "the token"}) // it would go into a URL
	}
	from := f.at // not f, which holds the body
	p.next = func(ctx context.Context) (*Page[T], error) { return l.after(ctx, cfg, from, next) }
	return p, nil
}

// page fetches and decodes. A page that holds nothing but its own cursor is
// asked for once more, one item wider.
func (l *lister[T, P]) page(ctx context.Context, cfg callConfig, at position) (*Page[T], error) {
	f, err := l.fetch(ctx, cfg, at)
	if err != nil {
		return nil, err
	}
	p, err := l.decode(cfg, f)
	if err == nil && len(p.Items) == 0 && p.HasMore && at.widen == 0 && l.limit > 0 {
		at.widen = 1
		return l.page(ctx, cfg, at)
	}
	return p, err
}

// after is the page after the one that began at from.
func (l *lister[T, P]) after(ctx context.Context, cfg callConfig, from, to position) (*Page[T], error) {
	if ctx == nil {
		return nil, &ParamError{Op: l.op.name, Field: "context", Reason: "must not be nil"}
	}
	if from.after == to.after && from.offset == to.offset {
		return nil, l.looped()
	}
	return l.page(ctx, cfg, to)
}

func (l *lister[T, P]) looped() error {
	return &DecodeError{
		Provider: l.s.c.provider, Op: l.op.name, StatusCode: http.StatusOK,
		Want: "a page that goes on", Got: "one that was seen before", Err: ErrPaginationLoop,
		fate: fate{outcome: Rejected},
	}
}

func (l *lister[T, P]) cursor(v *T) string {
	id := P(v).ident()
	if id.text != "" {
		return id.text
	}
	return strconv.FormatInt(id.number, 10)
}

// foreign reports whether a list's own URL leads to another origin. It is
// never followed; a provider that names one is not to be trusted.
func foreign(raw string, base *url.URL) bool {
	if raw == "" {
		return false
	}
	u, err := url.Parse(raw)
	if err != nil {
		return true
	}
	u = base.ResolveReference(u)
	return u.Scheme != base.Scheme || !strings.EqualFold(u.Host, base.Host)
}

// all iterates over the items of every page.
func (l lister[T, P]) all(ctx context.Context) iter.Seq2[*T, error] {
	if l.limit == 0 {
		l.limit = allLimit
	}
	return func(yield func(*T, error) bool) {
		ready, cfg, err := l.begin(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		var pages pageSource[T]
		switch {
		case ready.paged == byOffset && (cfg.parallel > 1 || cfg.prefetch):
			pages = newOffsetPages(ctx, ready, cfg, max(2, cfg.parallel))
		case cfg.prefetch:
			pages = newAheadPages(ctx, ready, cfg)
		default:
			pages = &plainPages[T, P]{l: ready, cfg: cfg}
		}
		defer pages.stop()
		ready.walk(ctx, pages, yield)
	}
}

// pageSource hands out pages in order; after the last it returns nil.
type pageSource[T any] interface {
	next(context.Context) (*Page[T], error)
	stop()
}

// walk yields the items, none that the page before had too: a row that is added
// meanwhile moves its neighbours over the border. By cursor, it knows where all
// pages before ended, since a loop can be longer than a page; by offset, pages
// with nothing new are drift, unless there are too many in a row.
func (l *lister[T, P]) walk(ctx context.Context, pages pageSource[T], yield func(*T, error) bool) {
	var before, current map[ident]struct{}
	cursors := make(map[ident]struct{})
	stale := 0
	for {
		page, err := pages.next(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		if page == nil || len(page.Items) == 0 && !page.HasMore {
			return
		}
		if len(page.Items) == 0 {
			yield(nil, l.looped())
			return
		}
		last := P(page.Items[len(page.Items)-1]).ident()
		if l.paged == byCursor {
			if _, seen := cursors[last]; seen && page.HasMore {
				yield(nil, l.looped())
				return
			}
			cursors[last] = struct{}{}
		}
		before, current = current, before
		if current == nil {
			current = make(map[ident]struct{}, len(page.Items))
		}
		clear(current)
		stale++
		for _, v := range page.Items {
			id := P(v).ident()
			if _, seen := current[id]; seen {
				continue
			}
			current[id] = struct{}{}
			if _, seen := before[id]; seen {
				continue
			}
			stale = 0
			if !yield(v, nil) {
				return
			}
		}
		if stale == maxStalePages {
			yield(nil, l.looped())
			return
		}
	}
}

// maxStalePages is how many pages by offset may bring nothing new in a row.
const maxStalePages = 3

// plainPages asks for a page when it is wanted.
type plainPages[T any, P resource[T]] struct {
	l    *lister[T, P]
	cfg  callConfig
	page *Page[T]
}

func (s *plainPages[T, P]) next(ctx context.Context) (p *Page[T], err error) {
	switch {
	case s.page == nil:
		p, err = s.l.page(ctx, s.cfg, s.l.start())
	case !s.page.HasMore:
		return nil, nil
	default:
		p, err = s.page.Next(ctx)
	}
	s.page = p
	return p, err
}

func (s *plainPages[T, P]) stop() {}
