package wire

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// one opens {"v": raw} at its member.
func one(t *testing.T, raw string, mode Mode) *Object {
	t.Helper()
	o, err := Open([]byte(`{"v": `+raw+` , "after":1}`), mode)
	require.Nil(t, err)
	require.True(t, o.Next())
	return o
}

// rest checks that the walk goes on behind the value.
func rest(t *testing.T, o *Object) {
	t.Helper()
	require.True(t, o.Next(), "%v", o.Err())
	require.Equal(t, "after", string(o.Key))
	require.False(t, o.Next())
	require.Nil(t, o.Err())
}

func TestScalars(t *testing.T) {
	t.Parallel()
	when := time.Date(2018, 10, 1, 17, 4, 34, 160171000, time.UTC)
	for name, tc := range map[string]struct {
		raw  string
		read func(*Object) any
		want any
	}{
		"string":           {`"a"`, func(o *Object) any { var v string; o.String(&v); return v }, "a"},
		"escaped string":   {`"a\"\\\u00e9\ud83d\ude00/"`, func(o *Object) any { var v string; o.String(&v); return v }, "a\"\\é😀/"},
		"backslashes":      {`"\\\\"`, func(o *Object) any { var v string; o.String(&v); return v }, `\\`},
		"null string":      {`null`, func(o *Object) any { v := "kept"; o.String(&v); return v }, "kept"},
		"string pointer":   {`"x"`, func(o *Object) any { var v *string; o.StringPtr(&v); return *v }, "x"},
		"known enum":       {`"active"`, func(o *Object) any { var v string; Enum(o, &v, "active"); return v }, "active"},
		"unknown enum":     {`"frozen"`, func(o *Object) any { var v string; Enum(o, &v, "active"); return v }, "frozen"},
		"bool":             {`true`, func(o *Object) any { var v bool; o.Bool(&v); return v }, true},
		"bool pointer":     {`false`, func(o *Object) any { var v *bool; o.BoolPtr(&v); return *v }, false},
		"null bool":        {`null`, func(o *Object) any { var v *bool; o.BoolPtr(&v); return v == nil }, true},
		"int":              {`-12`, func(o *Object) any { var v int; Int(o, &v); return v }, -12},
		"quoted int":       {`"12"`, func(o *Object) any { var v int; Int(o, &v); return v }, 12},
		"whole float":      {`3.0`, func(o *Object) any { var v int; Int(o, &v); return v }, 3},
		"exponent":         {`1e3`, func(o *Object) any { var v int; Int(o, &v); return v }, 1000},
		"float":            {`150.5`, func(o *Object) any { var v float64; o.Float(&v); return v }, 150.5},
		"quoted float":     {`"150.5"`, func(o *Object) any { var v float64; o.Float(&v); return v }, 150.5},
		"float pointer":    {`0`, func(o *Object) any { var v *float64; o.FloatPtr(&v); return *v }, 0.0},
		"null float":       {`null`, func(o *Object) any { var v *float64; o.FloatPtr(&v); return v == nil }, true},
		"seconds":          {`3600`, func(o *Object) any { var v *time.Duration; o.Seconds(&v); return *v }, time.Hour},
		"fraction seconds": {`1.5`, func(o *Object) any { var v *time.Duration; o.Seconds(&v); return *v }, 1500 * time.Millisecond},
		"time":             {`"2018-10-01T17:04:34.160171Z"`, func(o *Object) any { var v time.Time; o.Time(&v); return v }, when},
		"time with offset": {`"2018-10-01T19:04:34.160171+02:00"`, func(o *Object) any { var v time.Time; o.Time(&v); return v }, when},
		"time, no zone":    {`"2018-10-01T17:04:34.160171"`, func(o *Object) any { var v time.Time; o.Time(&v); return v }, when},
		"null time":        {`null`, func(o *Object) any { var v *time.Time; o.TimePtr(&v); return v == nil }, true},
		"unix seconds":     {`1893456000`, func(o *Object) any { var v *time.Time; o.UnixSecondsPtr(&v); return *v }, time.Unix(1893456000, 0).UTC()},
		"unix as time":     {`"2030-01-01T00:00:00Z"`, func(o *Object) any { var v *time.Time; o.UnixSecondsPtr(&v); return *v }, time.Unix(1893456000, 0).UTC()},
		"strings":          {`["a","\u0062"]`, func(o *Object) any { var v []string; Strings(o, &v); return v }, []string{"a", "b"}},
		"no strings":       {`[ ]`, func(o *Object) any { var v []string; Strings(o, &v); return v }, []string{}},
		"int id":           {`7`, func(o *Object) any { var v int64; IntRef(o, &v); return v }, int64(7)},
		"text int id":      {`"7"`, func(o *Object) any { var v int64; IntRef(o, &v); return v }, int64(7)},
		"nested int id":    {`{"x":{"id":1},"id":"7","y":[{}]}`, func(o *Object) any { var v int64; IntRef(o, &v); return v }, int64(7)},
		"int id pointer":   {`7`, func(o *Object) any { var v *int64; IntRefPtr(o, &v); return *v }, int64(7)},
		"null int id":      {`null`, func(o *Object) any { var v *int64; IntRefPtr(o, &v); return v == nil }, true},
		"text id":          {`"u-1"`, func(o *Object) any { var v string; StringRef(o, &v); return v }, "u-1"},
		"number text id":   {`12`, func(o *Object) any { var v string; StringRef(o, &v); return v }, "12"},
		"escaped text id":  {`"u\u002d1"`, func(o *Object) any { var v string; StringRef(o, &v); return v }, "u-1"},
		"nested text id":   {`{"id":"u-1"}`, func(o *Object) any { var v string; StringRef(o, &v); return v }, "u-1"},
		"text id pointer":  {`"u-1"`, func(o *Object) any { var v *string; StringRefPtr(o, &v); return *v }, "u-1"},
		"null text id":     {`null`, func(o *Object) any { var v *string; StringRefPtr(o, &v); return v == nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := one(t, tc.raw, Strict)
			assert.Equal(t, tc.want, tc.read(o))
			rest(t, o)
		})
	}
}

func TestWrongShapes(t *testing.T) {
	t.Parallel()
	var (
		s  string
		n  int64
		f  float64
		b  bool
		at time.Time
		d  *time.Duration
		l  []string
	)
	for name, tc := range map[string]struct {
		raw  string
		read func(*Object)
		want string
		hard bool // lenient mode does not excuse it
	}{
		"number for string":  {`1`, func(o *Object) { o.String(&s) }, "v: want a string, got a number", false},
		"string for bool":    {`"true"`, func(o *Object) { o.Bool(&b) }, "v: want a boolean, got a string", false},
		"text for number":    {`"x"`, func(o *Object) { o.Float(&f) }, "v: want a number, got a string", false},
		"huge float":         {`1e400`, func(o *Object) { o.Float(&f) }, "v: want a number, got a number out of range", false},
		"array for number":   {`[]`, func(o *Object) { Int(o, &n) }, "v: want a whole number, got an array", false},
		"fraction for id":    {`1.5`, func(o *Object) { IntRef(o, &n) }, "v: want a whole number, got a fraction", true},
		"huge id":            {`99999999999999999999`, func(o *Object) { IntRef(o, &n) }, "v: want a whole number, got a number out of range", true},
		"infinite id":        {`1e400`, func(o *Object) { IntRef(o, &n) }, "v: want a whole number, got a number out of range", true},
		"large float id":     {`1e17`, func(o *Object) { IntRef(o, &n) }, "v: want a whole number, got a number out of range", true},
		"text for id":        {`"x"`, func(o *Object) { IntRef(o, &n) }, "v: want a whole number, got other text", true},
		"bool for id":        {`true`, func(o *Object) { IntRef(o, &n) }, "v: want a number, a string or an object, got a boolean", true},
		"array for text id":  {`[]`, func(o *Object) { StringRef(o, &s) }, "v: want a number, a string or an object, got an array", true},
		"nested wrong id":    {`{"id":{"id":[]}}`, func(o *Object) { IntRef(o, &n) }, "v.id.id: want a number, a string or an object, got an array", true},
		"month 13":           {`"2018-13-01T00:00:00Z"`, func(o *Object) { o.Time(&at) }, "v: want an RFC 3339 time, got other text", false},
		"empty time":         {`""`, func(o *Object) { o.Time(&at) }, "v: want an RFC 3339 time, got an empty string", false},
		"number for time":    {`1`, func(o *Object) { o.Time(&at) }, "v: want an RFC 3339 time, got a number", false},
		"endless seconds":    {`1e300`, func(o *Object) { o.Seconds(&d) }, "v: want a number of seconds, got a number out of range", true},
		"object for strings": {`{}`, func(o *Object) { Strings(o, &l) }, "v: want an array, got an object", false},
		"mixed strings":      {`["a",1]`, func(o *Object) { Strings(o, &l) }, "v: want an array of strings, got an array of other things", false},
		"text for object":    {`"x"`, func(o *Object) { o.Object() }, "v: want an object, got a string", false},
		"text for list":      {`"x"`, func(o *Object) { o.List(nil) }, "v: want a list, got a string", false},
		"list of booleans":   {`{"data":[true]}`, func(o *Object) { o.List(nil) }, "v.data[0]: want an object, got a boolean", true},
		"list of wrong ids": {`[1.5]`, func(o *Object) {
			o.List(func(item *Object) {
				for item.Next() {
					IntRef(item, &n)
				}
			})
		}, "v[0]: want an object or an id, got a number", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := one(t, tc.raw, Strict)
			tc.read(o)
			require.NotNil(t, o.Err())
			assert.Equal(t, tc.want, o.Err().Error())
			assert.False(t, o.Next(), "an error ends the walk")

			o = one(t, tc.raw, Lenient)
			tc.read(o)
			if tc.hard {
				require.NotNil(t, o.Err())
				return
			}
			rest(t, o)
			assert.Equal(t, Member{"v", []byte(tc.raw)}, o.Unknown[0], "kept")
		})
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                         "want JSON, got an empty body",
		"  \n":                     "want JSON, got an empty body",
		"<html></html>":            "want JSON, got markup",
		`{"a":`:                    "want JSON, got a syntax error at byte 5",
		"[]":                       "want an object, got an array",
		"null":                     "want an object, got null",
		`"x"`:                      "want an object, got a string",
		"12":                       "want an object, got a number",
		"true":                     "want an object, got a boolean",
		`{} {}`:                    "want JSON, got a syntax error at byte 4",
		strings.Repeat("[", 20000): "want JSON, got a syntax error at byte 10001",
	} {
		_, err := Open([]byte(raw), Strict)
		require.NotNil(t, err, "%.20s", raw)
		assert.Equal(t, want, err.Error())
	}
	o, err := Open([]byte(" {} "), Strict)
	require.Nil(t, err)
	assert.False(t, o.Next())
	assert.False(t, o.Next())
}

func TestUnknownKeepsWhatNobodyReads(t *testing.T) {
	t.Parallel()
	o, err := Open([]byte(`{"id":1,"new":{"a":[1,2]},"gone":null,"n\u0065xt":"}"}`), Strict)
	require.Nil(t, err)
	var id int64
	for o.Next() {
		if string(o.Key) == "id" {
			IntRef(o, &id)
		}
	}
	require.Nil(t, o.Err())
	assert.Equal(t, []Member{{"new", []byte(`{"a":[1,2]}`)}, {"next", []byte(`"}"`)}}, o.Unknown)
}

func TestExactString(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`"plain"`:        "plain",
		`"a\tb"`:         "a\tb",
		`"\ud83d\ude00"`: "😀",
		`"\\ud800"`:      `\ud800`,
		`"\ud800"`:       "a string that is not valid Unicode",
		`"\udc00"`:       "a string that is not valid Unicode",
		`"\ud800\u0041"`: "a string that is not valid Unicode",
		`"\ud83d\ud83d"`: "a string that is not valid Unicode",
		"\"\xff\"":       "a string that is not valid UTF-8",
		`12`:             "a number",
		`{}`:             "an object",
	} {
		o := one(t, raw, Strict)
		s, problem := o.ExactString()
		if problem != "" {
			assert.Equal(t, want, problem, raw)
			continue
		}
		assert.Equal(t, want, s, raw)
		rest(t, o)
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"array":       `[{"id":1},{"id":2,"x":[{}]}]`,
		"list object": `{"resource":"list","data":[{"id":1},{"id":2}],"has_more":false}`,
		"items":       `{"items":[{"id":1},{"id":2}],"count":2}`,
		"results":     `{"count":2,"results":[{"id":1},{"id":2}]}`,
		"ids":         `[1,"2"]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ids []int64
			o := one(t, raw, Strict)
			o.List(func(item *Object) {
				for item.Next() {
					if string(item.Key) == "id" {
						var id int64
						IntRef(item, &id)
						ids = append(ids, id)
					}
				}
			})
			assert.Equal(t, []int64{1, 2}, ids)
			rest(t, o)

			var elements []string
			o = one(t, raw, Strict)
			o.ListRaw(func(b []byte) { elements = append(elements, string(b)) })
			assert.Len(t, elements, 2)
			rest(t, o)
		})
	}
	o := one(t, "null", Strict)
	o.List(nil)
	rest(t, o)
	o = one(t, "null", Strict)
	o.ListRaw(nil)
	rest(t, o)
	o = one(t, `"x"`, Strict)
	o.ListRaw(nil)
	assert.Equal(t, "v: want a list, got a string", o.Err().Error())
}

func TestPage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		raw  string
		ids  []string
		env  Envelope
		last string
		more bool
		err  string
	}{
		"ricloud":     {raw: `{"resource":"list","data":[{"id":3},{"id":2}],"has_more":true,"total_count":3,"url":"/keys"}`, ids: []string{"3", "2"}, env: Envelope{true, true, 3, "/keys"}, last: "2", more: true},
		"items":       {raw: `{"count":1,"items":[{"id":"u"}]}`, ids: []string{"u"}, env: Envelope{Total: 1}, last: "u"},
		"results":     {raw: `{"count":1,"results":[{"id":"u"}]}`, ids: []string{"u"}, env: Envelope{Total: 1}, last: "u"},
		"bare":        {raw: ` [{"id":"u"}]`, ids: []string{"u"}, env: Envelope{Total: -1}},
		"empty":       {raw: `{"data":[],"has_more":false}`, env: Envelope{HasMoreSet: true, Total: -1}},
		"no list":     {raw: `{"count":1}`, err: `want an array "data", "items" or "results", got an object without`},
		"not a list":  {raw: `{"data":{}}`, err: "data: want an array, got an object"},
		"two lists":   {raw: `{"data":[],"items":[]}`, err: "items: want one list of items, got two"},
		"number":      {raw: `1`, err: "want a list, got a number"},
		"bad item":    {raw: `{"data":[{"id":1},7]}`, err: "data[1]: want an object, got a number"},
		"bad field":   {raw: `{"data":[{"id":1},{"id":[]}]}`, err: "data[1].id: want a number, a string or an object, got an array"},
		"bad in bare": {raw: `[{"id":[]}]`, err: "[0].id: want a number, a string or an object, got an array"},
		"not JSON":    {raw: `<`, err: "want JSON, got markup"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ids []string
			p, err := OpenPage([]byte(tc.raw))
			var env Envelope
			if err == nil {
				env, err = p.Each(func(o *Object) {
					for o.Next() {
						if string(o.Key) == "id" {
							var id string
							StringRef(o, &id)
							ids = append(ids, id)
							return // the rest is skipped
						}
					}
				})
			}
			if tc.err != "" {
				require.NotNil(t, err)
				assert.Equal(t, tc.err, err.Error())
				return
			}
			require.Nil(t, err)
			assert.Equal(t, tc.ids, ids)
			assert.Equal(t, tc.env, env)
			last, more := p.Last()
			assert.Equal(t, tc.last, last)
			assert.Equal(t, tc.more, more)
		})
	}
}

func TestLoose(t *testing.T) {
	t.Parallel()
	o := one(t, `[1]`, Strict)
	o.Loose().Bool(new(bool))
	rest(t, o)
	assert.Equal(t, Member{"v", []byte(`[1]`)}, o.Unknown[0])
	o, err := Open([]byte(`{"a":[],"b":[]}`), Strict)
	require.Nil(t, err)
	require.True(t, o.Next())
	o.Loose().Bool(new(bool))
	require.True(t, o.Next())
	o.Bool(new(bool))
	assert.Equal(t, "b: want a boolean, got an array", o.Err().Error(), "only the member that was said to be loose")
}

func TestPathHidesOddNames(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{"plain_Name9": "plain_Name9", "has space": "(odd name)", strings.Repeat("a", 41): "(long name)"} {
		o, err := Open([]byte(`{"`+key+`":1}`), Strict)
		require.Nil(t, err)
		require.True(t, o.Next())
		o.Fatal("x", "y")
		assert.Equal(t, want, o.Err().Path)
	}
}

// FuzzWalk checks the walk against encoding/json: whatever that accepts, the
// walk reads to its end, and sees the same members.
func FuzzWalk(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"b":[{"c":"\\\""},null],"d":{"e":true}}`, `[{"id":1}]`, `{"data":[{"id":"x"}],"has_more":true}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"":""}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := OpenPage(b); err == nil {
			p.Last()
			_, _ = p.Each(func(*Object) {})
		}
		for _, mode := range []Mode{Strict, Lenient} {
			o, err := Open(b, mode)
			var want map[string]json.RawMessage
			jerr := json.Unmarshal(b, &want)
			if (err == nil) != (jerr == nil && want != nil) {
				t.Fatalf("walk %v, encoding/json %v", err, jerr)
			}
			if err != nil {
				continue
			}
			got := map[string]json.RawMessage{}
			for o.Next() {
				got[string(o.Key)] = append(json.RawMessage(nil), o.Raw()...)
			}
			if o.Err() != nil {
				t.Fatal(o.Err())
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("walk %s, encoding/json %s", got, want)
			}
		}
		// Every reader survives every value.
		for i := range 14 {
			o, err := Open(b, Lenient)
			if err != nil {
				return
			}
			for o.Next() {
				read(o, i)
			}
		}
	})
}

func read(o *Object, kind int) {
	switch kind {
	case 0:
		o.String(new(string))
	case 1:
		o.BoolPtr(new(*bool))
	case 2:
		o.FloatPtr(new(*float64))
	case 3:
		Int(o, new(int))
	case 4:
		o.Seconds(new(*time.Duration))
	case 5:
		IntRefPtr(o, new(*int64))
	case 6:
		StringRefPtr(o, new(*string))
	case 7:
		o.TimePtr(new(*time.Time))
	case 8:
		o.UnixSecondsPtr(new(*time.Time))
	case 9:
		Strings(o, new([]string))
	case 10:
		o.ListRaw(func([]byte) {})
	case 11:
		o.List(func(*Object) {})
	case 12:
		o.ExactString()
	case 13:
		if inner := o.Object(); inner != nil {
			for inner.Next() {
				inner.Skip()
			}
		}
	}
}
