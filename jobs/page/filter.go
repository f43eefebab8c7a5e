package page

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/keywright/keywright/jobs"
)

// filter is what a person asked for.
type filter struct {
	group  group // groups: all
	Text   string
	page   int // from 1
	paused bool
}

func filterOf(q url.Values) filter {
	f := filter{group: groups, Text: clean(q.Get("q"), lengthQuery), page: 1, paused: q.Get("refresh") == "off"}
	for g := range groups {
		if q.Get("state") == g.Slug() {
			f.group = g
		}
	}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 1 {
		f.page = n
	}
	return f
}

// Active reports whether keys are left out.
func (f filter) Active() bool { return f.group != groups || f.Text != "" }

// query is the filter as in a link.
func (f filter) query() url.Values {
	q := make(url.Values)
	if f.group != groups {
		q.Set("state", f.group.Slug())
	}
	if f.Text != "" {
		q.Set("q", f.Text)
	}
	if f.page > 1 {
		q.Set("page", strconv.Itoa(f.page))
	}
	if f.paused {
		q.Set("refresh", "off")
	}
	return q
}

// matches reports whether a key has the text, which is in lower case, in one of
// its names.
func matches(s *jobs.Status, text string) bool {
	if text == "" {
		return true
	}
	for _, name := range [...]string{s.Job, s.Provider, s.Strategy, s.Key, s.Owner} {
		if strings.Contains(strings.ToLower(name), text) {
			return true
		}
	}
	return false
}
