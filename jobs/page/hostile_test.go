package page_test

import (
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// hostile are texts that would do harm if they were shown as they are.
var hostile = map[string]string{
	"markup":      `<script>alert(1)</script><img src=x onerror=alert(1)><svg onload=alert(1)>`,
	"attribute":   `" onmouseover="alert(1)" x="`,
	"apostrophe":  `' onmouseover='alert(1)`,
	"tick":        "`onmouseover=alert(1)",
	"close":       `</title></style></bdi></td></table><h1>Pwned</h1><!--`,
	"comment":     `--><!DOCTYPE html><base href=//evil.example>`,
	"cdata":       `]]><![CDATA[<x>]]>`,
	"url":         `javascript:alert(1)`,
	"data":        `data:text/html,<script>alert(1)</script>`,
	"network":     `//evil.example/x`,
	"backslash":   `\\evil.example\x`,
	"dots":        `../../../etc/passwd`,
	"slashes":     `a/b//c/../d/./e`,
	"dot segment": `%2e%2e`,
	"query":       `a?b=c&d=e#f`,
	"percent":     `100%25%00%zz%`,
	"entity":      `&lt;script&gt;&amp;&#x3c;&nbsp;`,
	"template":    `{{.}}{{define "x"}}${1}`,
	"formula":     `=HYPERLINK("http://evil.example")`,
	"bidi":        "abc\u202Egnp.exe\u202C\u2066x\u2069\u200F\u061C",
	"invisible":   "a\u200B\u200C\u200D\u2060\uFEFF\u00ADb\u3164\u115F\u2800c\U000E0041\uFE0F",
	"controls":    "a\x00\x01\x07\x08\x1b[31mred\x7f\u0085\u009Bb",
	"lines":       "one\r\ntwo\nthree\vfour\ffive\u2028six\u2029seven\ttab",
	"broken":      "a\xff\xfe\xc3\x28\xed\xa0\x80\xf4\x90\x80\x80b",
	"accents":     "z" + strings.Repeat("\u0335\u0489\u0301", 400),
	"long":        strings.Repeat("a-very-long-name.", 600),
	"wide":        strings.Repeat("W", 10_000),
	"blank":       " \u00A0\u2003\u3000 ",
	"directions":  "\u05E9\u05DC\u05D5\u05DD \u0627\u0644\u0633\u0644\u0627\u0645",
	"right half":  strings.Repeat("é", 61),
}

// plain fails on a character that lays out text, or cannot be seen.
func plain(t *testing.T, body string) {
	t.Helper()
	require.True(t, utf8.ValidString(body))
	for _, r := range body {
		if r == '\n' || r == '\t' {
			continue
		}
		require.False(t, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co), "%U", r)
		require.NotContains(t, "\u3164\u115F\u2800", string(r))
	}
	require.NotContains(t, strings.ToLower(body), "zgotmplz", "html/template has refused a value")
}

func TestHostile(t *testing.T) {
	t.Parallel()
	for name, text := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rot := &rotation.Status{
				Job: text, Strategy: text, State: rotation.StateStuck, Resume: rotation.State(text), Operation: text, Problem: text, Steps: []string{text, "then run Resume"},
				Sinks: []rotation.SinkStatus{{Name: text, State: rotation.SinkState(text), Problem: text}, {Name: text, State: rotation.SinkConfirmed, Confirmed: now}}, Deadline: in(time.Hour), Issued: ago(time.Hour),
				Data: map[string]string{text: text},
			}
			s := jobs.Status{Job: text, Strategy: text, Provider: text, Key: text, Owner: text, Reason: text, State: text, Problem: text, Blocked: text, Due: in(time.Hour), LastRun: now, Issued: now, Expires: in(time.Hour)}
			stuck := s
			stuck.Rotation = rot
			other := s
			other.State, other.Owner = "DONE", ""
			for _, s := range []jobs.Status{s, stuck, other} {
				f := &fake{
					all: []jobs.Status{s}, worker: text,
					events: []store.Event{{Job: text, Operation: text, At: now, Kind: text, From: text, To: text, Sink: text, Text: text}, {Kind: store.KindState, To: text, Text: text}, {Kind: store.KindSink, To: text, Sink: text}},
					runs:   []store.Run{{Job: text, Operation: text, Owner: text, Started: ago(time.Hour), Finished: now, State: text, Problem: text, ResumeAt: now}},
				}
				p := newPage(t, f)
				w := get(p, "/?q="+url.QueryEscape(text)+"&state="+url.QueryEscape(text)+"&page="+url.QueryEscape(text))
				plain(t, w.Body.String())
				parse(t, w.Body.String())
				w = get(p, "/")
				plain(t, w.Body.String())
				require.Less(t, w.Body.Len(), 40<<10, "a long text is cut")
				doc := parse(t, w.Body.String())
				require.Len(t, doc.names(), 1)
				for _, e := range doc.all("bdi", "") {
					require.LessOrEqual(t, utf8.RuneCountInString(e.text), 161)
				}
				// The link leads to the key's own page, whatever it is named.
				link := doc.one(t, "th", "name")
				var href string
				for _, e := range doc.all("a", "") {
					if e.up == link {
						href = e.attrs["href"]
					}
				}
				u, err := url.Parse(href)
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(u.EscapedPath(), "/keys/"))
				require.Equal(t, 1, strings.Count(strings.TrimPrefix(u.EscapedPath(), "/keys"), "/"), "a name is one segment: %s", href)
				w = get(p, href)
				require.Equal(t, 200, w.Code, href)
				plain(t, w.Body.String())
				doc = parse(t, w.Body.String())
				h1 := doc.one(t, "h1", "").text
				require.False(t, strings.HasSuffix(h1, "…"), "the key's own page has the whole name")
				if utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return r > unicode.MaxASCII || r < ' ' }) < 0 {
					require.Equal(t, text, h1, "the name is shown as a text")
					require.Contains(t, doc.one(t, "main", "key").text, text)
				}
			}
		})
	}
}

// A browser takes dots for a directory, however they are escaped.
func TestHostile_dots(t *testing.T) {
	t.Parallel()
	p := newPage(t, &fake{all: []jobs.Status{{Job: "."}, {Job: ".."}, {Job: ""}, {Job: "..."}}})
	doc := show(t, p, "/")
	var links []string
	for _, e := range doc.all("a", "") {
		if e.inside("th", "name") {
			links = append(links, e.attrs["href"])
		}
	}
	require.Equal(t, []string{"/keys/..."}, links)
	require.Len(t, doc.names(), 4)
}

func TestNoSecret(t *testing.T) {
	t.Parallel()
	s := jobs.Status{Job: "k", State: "STUCK", Rotation: &rotation.Status{State: rotation.StateStuck, Data: map[string]string{"credential": canary, canary: "x"}}}
	p := newPage(t, &fake{all: []jobs.Status{s}})
	for _, target := range []string{"/", "/keys/k"} {
		require.NotContains(t, get(p, target).Body.String(), "canary", "the memory of a strategy is not shown")
	}
}
