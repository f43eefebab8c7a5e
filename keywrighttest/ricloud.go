package keywrighttest

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// gracePeriod is how long ricloud accepts a rotated token.
const gracePeriod = 6 * time.Hour

// Ricloud is a fake ricloud with one organisation. It is safe for concurrent
// use.
type Ricloud struct {
	*server

	// Under server.mu.
	organisation object
	nextID       map[string]int64 // by kind; ids are never used again
	keys         []*ricloudKey
	storage      []object
	webhooks     []object
	tasks        []object
	events       []object
	attempts     []Attempt
	settled      map[string]chan struct{} // by event that is delivered to somebody; closed when that is over
}

// ricloudKey is a key with the tokens that it has had.
type ricloudKey struct {
	fields object
	since  time.Time // when its token is accepted
	graced []graced
}

type graced struct {
	token string
	until time.Time
}

// NewRicloud starts a fake ricloud with one active key. Close it when done.
func NewRicloud(opts ...Option) (*Ricloud, error) {
	f := &Ricloud{server: newServer(opts), nextID: make(map[string]int64), settled: make(map[string]chan struct{})}
	f.server.route, f.server.handler = ricloudRoute, f.handle
	f.organisation = template("ricloud/organisation_unconfigured.json")
	f.organisation["date_created"] = f.stamp()
	if !f.opts.older {
		f.organisation["api_version"], f.organisation["type"] = "v3", "standard"
		f.organisation["config"] = object{"publish_source_files": false}
	}
	if first := f.newKey(object{}); f.opts.firstToken != "" {
		first.fields["token"] = f.opts.firstToken
	}
	if err := f.start(); err != nil {
		return nil, err
	}
	return f, nil
}

// StartRicloud starts a fake ricloud that is closed when the test ends.
func StartRicloud(tb TB, opts ...Option) *Ricloud {
	tb.Helper()
	f, err := NewRicloud(opts...)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(f.Close)
	return f
}

// Token returns the current token of the organisation's first key, whose id
// is 1.
func (f *Ricloud) Token() string { return f.TokenOf(1) }

// TokenOf returns the current token of a key, "" if there is none such.
func (f *Ricloud) TokenOf(id int64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k := f.key(id); k != nil {
		return k.fields.text("token")
	}
	return ""
}

// AcceptedTokens returns the tokens that authenticate as a key right now: the
// current one first, then those in their grace period.
func (f *Ricloud) AcceptedTokens(id int64) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	k := f.key(id)
	if k == nil || k.fields["state"] != "active" {
		return nil
	}
	return k.accepted(f.clock.Now())
}

// AddKeys makes n more keys and returns the ids of the first and the last.
func (f *Ricloud) AddKeys(n int) (first, last int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first = f.nextID["key"] + 1
	for range n {
		f.newKey(object{})
	}
	return first, f.nextID["key"]
}

// AddTrialKey makes a trial key that expires at t, and returns its id. The
// fake's clock decides: an expired key is refused, and shown as expired.
func (f *Ricloud) AddTrialKey(t time.Time) (id int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.newKey(object{})
	k.fields["type"], k.fields["date_expires"] = "trial", stampOf(t)
	return k.id()
}

// id returns the next id of a kind.
func (f *Ricloud) id(kind string) int64 {
	f.nextID[kind]++
	return f.nextID[kind]
}

// expire turns the trial keys whose time is over.
func (f *Ricloud) expire() {
	for _, k := range f.keys {
		if t, err := time.Parse(time.RFC3339, k.fields.text("date_expires")); err == nil && !f.clock.Now().Before(t) {
			k.fields["state"] = "expired"
		}
	}
}

// SetKeyState changes the state of a key: "active", "deactivated", "blocked"
// or "expired".
func (f *Ricloud) SetKeyState(id int64, state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k := f.key(id); k != nil {
		k.fields["state"] = state
	}
}

// RemoveKey makes a key vanish, as nothing but an administrator could.
func (f *Ricloud) RemoveKey(id int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys = slices.DeleteFunc(f.keys, func(k *ricloudKey) bool { return k.id() == id })
}

func (k *ricloudKey) id() int64 { return k.fields["id"].(int64) }

func (k *ricloudKey) accepted(now time.Time) []string {
	var out []string
	if !now.Before(k.since) {
		out = append(out, k.fields.text("token"))
	}
	for _, g := range k.graced {
		if now.Before(g.until) {
			out = append(out, g.token)
		}
	}
	return out
}

func (f *Ricloud) key(id int64) *ricloudKey {
	for _, k := range f.keys {
		if k.id() == id {
			return k
		}
	}
	return nil
}

func (f *Ricloud) newKey(body object) *ricloudKey {
	fields := template("ricloud/key.json")
	fields["id"] = f.id("key")
	fields["storage_config"], fields["webhook_config"] = whole(body["storage_config"]), whole(body["webhook_config"])
	fields["token"] = newToken()
	fields["date_created"] = f.stamp()
	if f.opts.older {
		delete(fields, "config")
	}
	k := &ricloudKey{fields: fields}
	f.keys = append(f.keys, k)
	return k
}

// newToken returns 64 letters and digits.
func newToken() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ab"
	b := make([]byte, 64)
	_, _ = rand.Read(b) // never fails
	for i := range b {
		b[i] = alphabet[b[i]%64]
	}
	return string(b)
}

// ricloudRoute names the operation at a path.
func ricloudRoute(method, path string) (op, id string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/") // no path ends in a slash
	name := parts[0]
	if name == "configs" && len(parts) > 1 {
		name, parts = map[string]string{"storage": "storage_config", "webhook": "webhook_config"}[parts[1]], parts[1:]
	}
	name = map[string]string{
		"keys": "key", "key": "key", "storage_config": "storage_config", "webhook_config": "webhook_config",
		"tasks": "task", "events": "event", "organisation": "organisation",
	}[name]
	if name == "" {
		return "", ""
	}
	if parts[0] == "key" || parts[0] == "organisation" {
		if len(parts) > 1 {
			return "", ""
		}
		verb := map[string]string{"GET": "retrieve", "POST": "update"}[method]
		if parts[0] == "key" {
			verb = map[string]string{"GET": "current"}[method]
		}
		return join(name, verb), ""
	}
	switch len(parts) {
	case 1:
		return join(name, map[string]string{"GET": "list", "POST": "create"}[method]), ""
	case 2:
		return join(name, map[string]string{"GET": "retrieve", "POST": "update", "DELETE": "delete"}[method]), parts[1]
	case 3:
		if method == http.MethodPost && (parts[2] == "rotate" && name == "key" || parts[2] == "test" && strings.HasSuffix(name, "_config")) {
			return name + "." + parts[2], parts[1]
		}
	}
	return "", ""
}

func join(name, verb string) string {
	if verb == "" {
		return ""
	}
	return name + "." + verb
}

// refuse answers with a golden error body.
func (f *Ricloud) refuse(name string) (answer, bool) {
	t := template("ricloud/error_" + name + ".json")
	return reply(int(t["_http_status"].(float64)), t["body"]), false
}

// refuseField answers that a parameter is wrong.
func (f *Ricloud) refuseField(field, message string) (answer, bool) {
	t := template("ricloud/error_invalid_parameter.json")
	body := object(t["body"].(map[string]any))
	body["params"] = object{field: []string{message}}
	return reply(http.StatusBadRequest, body), false
}

func (f *Ricloud) handle(r *Request, id, token string) (answer, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	var caller *ricloudKey
	for _, k := range f.keys {
		if token != "" && slices.Contains(k.accepted(f.clock.Now()), token) {
			caller = k
		}
	}
	switch {
	case caller == nil || r.Scheme != "Token":
		return f.refuse("unauthorized")
	case caller.fields["state"] != "active":
		if f.opts.forbidInactive {
			return f.refuse("missing_scope")
		}
		return f.refuse("unauthorized")
	}
	r.Auth = true
	body, ok := decodeBody(r.Body)
	if !ok {
		return f.refuse("invalid_body")
	}
	kind, verb, _ := strings.Cut(r.Op, ".")
	switch kind {
	case "organisation":
		return f.handleOrganisation(verb, body)
	case "key":
		return f.handleKey(r, verb, id, body, caller)
	case "storage_config":
		return f.handleConfig(r, &f.storage, "storage", verb, id, body, caller)
	case "webhook_config":
		return f.handleConfig(r, &f.webhooks, "webhook", verb, id, body, caller)
	case "task":
		return f.handleLog(r, f.tasks, verb, id, "/tasks", f.showTask, "type", "state", "source_type", "session", "poll")
	case "event":
		return f.handleLog(r, f.events, verb, id, "/events", object.clone, "type", "action", "state")
	}
	return f.refuse("not_found")
}

func (f *Ricloud) handleOrganisation(verb string, body object) (answer, bool) {
	if verb == "update" {
		next := f.organisation.clone() // refused as a whole, or taken as a whole
		for _, field := range []string{"storage_config_default", "webhook_config_default"} {
			v, given := body[field]
			if !given {
				continue
			}
			list := f.storage
			if field == "webhook_config_default" {
				list = f.webhooks
			}
			if v != nil && find(list, v) == nil {
				return f.refuseField(field, "no such config")
			}
			next[field] = whole(v)
		}
		if name, given := body["name"]; given {
			text, ok := name.(string)
			if !ok || text == "" {
				return f.refuseField("name", "must be text")
			}
			next["name"] = text
			next["slug"] = strings.ReplaceAll(strings.ToLower(text), " ", "-")
		}
		if config, given := body["config"]; given && !f.opts.older {
			next["config"] = config
		}
		f.organisation = next
	}
	o := f.organisation.clone()
	o["storage_configs"] = f.nested(f.storage, "storage", "/configs/storage")
	o["webhook_configs"] = f.nested(f.webhooks, "webhook", "/configs/webhook")
	return reply(http.StatusOK, f.ids(o)), verb == "update"
}

// nested is a list inside another object.
func (f *Ricloud) nested(list []object, kind, path string) any {
	items := []object{}
	for _, o := range slices.Backward(list) {
		items = append(items, f.showConfig(o, kind, false))
	}
	if f.opts.older {
		return items
	}
	return object{"data": items, "has_more": false, "total_count": len(items), "url": path}
}

func (f *Ricloud) handleKey(r *Request, verb, id string, body object, caller *ricloudKey) (answer, bool) {
	switch verb {
	case "current":
		return reply(http.StatusOK, f.showKey(caller, false)), false
	case "list":
		var keys []object
		for _, k := range slices.Backward(f.keys) {
			if matches(k.fields, r, "type", "state") {
				keys = append(keys, f.showKey(k, false))
			}
		}
		return f.page(r, keys, "/keys")
	case "create":
		if a, bad := f.checkConfigs(body); bad {
			return a, false
		}
		return reply(http.StatusCreated, f.showKey(f.newKey(body), true)), true
	}
	n, err := strconv.ParseInt(id, 10, 64)
	k := f.key(n)
	if err != nil || k == nil {
		return f.refuse("not_found")
	}
	switch verb {
	case "retrieve":
		return reply(http.StatusOK, f.showKey(k, false)), false
	case "update":
		if a, bad := f.checkConfigs(body); bad {
			return a, false
		}
		for _, field := range []string{"storage_config", "webhook_config"} {
			if v, given := body[field]; given {
				k.fields[field] = whole(v)
			}
		}
		if v, given := body["config"]; given && !f.opts.older {
			k.fields["config"] = v
		}
		return reply(http.StatusOK, f.showKey(k, false)), true
	case "rotate":
		force, given := body["force"]
		if _, isBool := force.(bool); given && !isBool {
			return f.refuseField("force", "must be a boolean")
		}
		f.rotate(k, force == true)
		return reply(http.StatusOK, f.showKey(k, true)), true
	}
	return f.refuse("not_found")
}

func (f *Ricloud) rotate(k *ricloudKey, force bool) {
	old := graced{k.fields.text("token"), f.clock.Now().Add(gracePeriod)}
	switch {
	case force:
		k.graced = nil
	case f.opts.manyGraced:
		k.graced = append(k.graced, old)
	default:
		k.graced = []graced{old}
	}
	k.fields["token"], k.since = newToken(), f.clock.Now().Add(f.opts.lag)
}

// checkConfigs refuses references to configs that do not exist.
func (f *Ricloud) checkConfigs(body object) (answer, bool) {
	for field, list := range map[string][]object{"storage_config": f.storage, "webhook_config": f.webhooks} {
		if v := body[field]; v != nil && find(list, v) == nil {
			a, _ := f.refuseField(field, "no such config")
			return a, true
		}
	}
	return answer{}, false
}

// showKey returns a key as it is sent. fresh says that its token is new.
func (f *Ricloud) showKey(k *ricloudKey, fresh bool) object {
	o := k.fields.clone()
	if f.opts.masked && !fresh {
		o["token"] = o.text("token")[:4] + "…(64 chars)"
	}
	if f.opts.nested {
		for field, list := range map[string][]object{"storage_config": f.storage, "webhook_config": f.webhooks} {
			if c := find(list, o[field]); c != nil {
				o[field] = f.showConfig(c, strings.TrimSuffix(field, "_config"), false)
			}
		}
	}
	return f.ids(o)
}

// ids turns an object's numeric ids into text, where that is wanted.
func (f *Ricloud) ids(o object) object {
	if !f.opts.textIDs {
		return o
	}
	for _, name := range []string{"id", "organisation", "key", "storage_config", "webhook_config", "storage_config_default", "webhook_config_default"} {
		switch v := o[name].(type) {
		case int64:
			o[name] = strconv.FormatInt(v, 10)
		case float64:
			o[name] = strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	return o
}

// whole turns a decoded JSON number into the integer it is.
func whole(v any) any {
	if n, ok := v.(float64); ok {
		return int64(n)
	}
	return v
}

// find returns the object with an id, or nil.
func find(list []object, id any) object {
	for _, o := range list {
		if o["id"] == whole(id) {
			return o
		}
	}
	return nil
}

// matches reports whether an object passes the filters of a request.
func matches(o object, r *Request, filters ...string) bool {
	for _, name := range filters {
		if want := r.Query.Get(name); want != "" && o.text(name) != want {
			return false
		}
	}
	return true
}

// page answers a list, which is given newest first.
func (f *Ricloud) page(r *Request, list []object, path string) (answer, bool) {
	limit := number(r.Query, "limit", 10)
	most := 1000
	if f.opts.maxLimit > 0 {
		most = f.opts.maxLimit
	}
	limit = max(1, min(limit, most))
	total := len(list)
	at := func(cursor string) int {
		return slices.IndexFunc(list, func(o object) bool {
			switch id := o["id"].(type) {
			case int64:
				return strconv.FormatInt(id, 10) == cursor
			case string:
				return id == cursor
			}
			return false
		})
	}
	if before := r.Query.Get("before_id"); before != "" {
		if i := at(before); i >= 0 {
			list = list[:i]
		}
	}
	if after := r.Query.Get("after_id"); after != "" {
		i := at(after)
		if i < 0 {
			// The item is gone. Numeric ids still say where it was.
			n, err := strconv.ParseInt(after, 10, 64)
			i = slices.IndexFunc(list, func(o object) bool { id, ok := o["id"].(int64); return ok && err == nil && id < n })
			if i < 0 {
				i = len(list)
			}
		} else if !f.opts.inclusive {
			i++
		}
		list = list[min(i, len(list)):]
	}
	more := len(list) > limit
	list = list[:min(limit, len(list))]
	if list == nil {
		list = []object{}
	}
	return reply(http.StatusOK, object{
		"resource": "list", "data": list, "has_more": more, "total_count": total, "url": path,
	}), false
}

// showTask returns a task as it is sent.
func (f *Ricloud) showTask(task object) object {
	o := task.clone()
	if f.opts.older {
		o["results"] = []any{}
	}
	return f.ids(o)
}

// handleLog answers reads of tasks and events.
func (f *Ricloud) handleLog(r *Request, list []object, verb, id, path string, show func(object) object, filters ...string) (answer, bool) {
	switch verb {
	case "list":
		var out []object
		for _, o := range slices.Backward(list) {
			if matches(o, r, filters...) {
				out = append(out, show(o))
			}
		}
		return f.page(r, out, path)
	case "retrieve":
		if o := find(list, id); o != nil {
			return reply(http.StatusOK, show(o)), false
		}
	}
	return f.refuse("not_found")
}
