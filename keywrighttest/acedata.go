package keywrighttest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// AceData is a fake Ace Data Cloud with one user, who has two applications:
// one for an API service, whose credentials have tokens, and one for a proxy
// service, whose only credential is a user name and a password. It is safe for
// concurrent use.
type AceData struct {
	*server

	// Under server.mu.
	user         object
	applications []object
	credentials  []object
	tokens       []object
	services     map[string]object
	verify       map[string]bool      // services that want verification
	since        map[string]time.Time // when a credential's secret is accepted
}

// apiIDs are the APIs that allowed_api_ids may name.
var apiIDs = [...]string{"e4fbc3b6-0000-4000-8000-000000000030", "e4fbc3b6-0000-4000-8000-000000000031"}

// NewAceData starts a fake Ace Data Cloud. Close it when done.
func NewAceData(opts ...Option) (*AceData, error) {
	f := &AceData{server: newServer(opts), verify: make(map[string]bool), since: make(map[string]time.Time)}
	f.server.route, f.server.handler = aceDataRoute, f.handle
	f.user = template("acedata/platform_tokens_me_200.json")
	service := func(fixture string) object {
		return template(fixture)["application"].(map[string]any)["service"].(map[string]any)
	}
	f.services = make(map[string]object)
	for _, s := range []object{service("acedata/credential_token_full.json"), service("acedata/credential_identity_full.json")} {
		f.services[s.text("id")] = s
		f.newApplication(s.text("id"), "Usage", "Individual", f.user.text("id"))
	}
	if first := f.newToken(f.user.text("id"), object{}); f.opts.firstToken != "" {
		first["token"] = f.opts.firstToken
	}
	if err := f.start(); err != nil {
		return nil, err
	}
	return f, nil
}

// StartAceData starts a fake Ace Data Cloud that is closed when the test ends.
func StartAceData(tb TB, opts ...Option) *AceData {
	tb.Helper()
	f, err := NewAceData(opts...)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(f.Close)
	return f
}

// Token returns the user's platform token.
func (f *AceData) Token() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tokens[0].text("token")
}

// UserID returns the user's id.
func (f *AceData) UserID() string { return f.user.text("id") }

// ApplicationID returns the id of the application for an API service, whose
// credentials have tokens.
func (f *AceData) ApplicationID() string { return f.applicationID(0) }

// ProxyApplicationID returns the id of the application for a proxy service,
// which takes one credential, with a user name and a password.
func (f *AceData) ProxyApplicationID() string { return f.applicationID(1) }

func (f *AceData) applicationID(i int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applications[i].text("id")
}

// ServiceID returns the id of a service that the user has no application for.
func (f *AceData) ServiceID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := object{"id": newUUID(), "alias": "images", "title": "Images", "type": "Api", "unit": "Credit", "icon_url": nil}
	f.services[s.text("id")] = s
	return s.text("id")
}

// APIIDs returns ids that allowed_api_ids may name.
func (f *AceData) APIIDs() []string { return apiIDs[:] }

// AcceptedTokens returns the secrets of a credential that the data plane would
// take right now: its token or its password, unless it has expired, is used
// up, or is gone.
func (f *AceData) AcceptedTokens(id string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := find(f.credentials, id)
	if c == nil || f.unusable(c) != "" {
		return nil
	}
	if c["type"] == "Identity" {
		return []string{c.text("password")}
	}
	return []string{c.text("token")}
}

// AddCredentials makes n credentials under the application for an API service,
// held by the user.
func (f *AceData) AddCredentials(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		f.newCredential(f.applications[0], object{})
	}
}

// AddForeignCredential makes a credential that another user holds, and returns
// its id.
func (f *AceData) AddForeignCredential() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.newCredential(f.newApplication(f.applications[0].text("service_id"), "Usage", "Individual", newUUID()), object{})
	return c.text("id")
}

// AddForeignToken makes a platform token of another user, and returns its id.
func (f *AceData) AddForeignToken() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newToken(newUUID(), object{}).text("id")
}

// Disable makes an application's credentials fail at the data plane.
func (f *AceData) Disable(applicationID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := find(f.applications, applicationID); a != nil {
		a["disabled"] = true
	}
}

// RequireVerification makes a service refuse new applications until its
// operator has looked at them.
func (f *AceData) RequireVerification(serviceID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verify[serviceID] = true
}

// RemoveCredential makes a credential vanish.
func (f *AceData) RemoveCredential(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.credentials = slices.DeleteFunc(f.credentials, func(o object) bool { return o["id"] == id })
}

// SetUsed sets what a credential has spent.
func (f *AceData) SetUsed(id string, amount float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := find(f.credentials, id); c != nil {
		c["used_amount"] = amount
	}
}

func (f *AceData) newApplication(serviceID, kind, scope, owner string) object {
	a := template("acedata/application_create_201.json")
	a["id"], a["user_id"], a["type"], a["scope"] = newUUID(), owner, kind, scope
	a["service_id"] = nil
	if serviceID != "" {
		a["service_id"] = serviceID
	}
	a["created_at"], a["updated_at"] = f.stamp(), f.stamp()
	f.applications = append(f.applications, a)
	return a
}

func (f *AceData) newToken(owner string, body object) object {
	t := template("acedata/platform_token_create_201.json")
	t["id"], t["user_id"], t["token"] = newUUID(), owner, "platform-v1-"+randomHex(64)
	t["tags"], t["metadata"] = body["tags"], body["metadata"]
	t["created_at"], t["updated_at"] = f.stamp(), f.stamp()
	f.tokens = append(f.tokens, t)
	return t
}

func (f *AceData) isProxy(application object) bool {
	return f.services[application.text("service_id")].text("type") == "Proxy"
}

func (f *AceData) newCredential(application, body object) object {
	fixture := "acedata/credential_token_full.json"
	if f.isProxy(application) {
		fixture = "acedata/credential_identity_full.json"
	}
	c := template(fixture)
	owner := application.text("user_id")
	c["id"], c["application_id"], c["creator_id"], c["user_id"] = newUUID(), application["id"], owner, owner
	c["application"] = f.summary(application)
	for _, name := range []string{"name", "limited_amount", "expired_at", "host", "allowed_api_ids", "tags", "metadata"} {
		c[name] = body[name]
	}
	normalise(c)
	if holder, _ := body["for_user_id"].(string); holder != "" && holder != owner {
		c["user_id"], c["granted"], c["granted_to_user_id"] = holder, true, holder
	}
	c["used_amount"] = 0.0
	f.renew(c)
	c["created_at"], c["updated_at"] = f.stamp(), f.stamp()
	f.credentials = append(f.credentials, c)
	return c
}

// renew gives a credential a new secret.
func (f *AceData) renew(c object) {
	f.since[c.text("id")] = f.clock.Now().Add(f.opts.lag)
	if c["type"] == "Identity" {
		c["username"], c["password"] = "u"+randomHex(16), "p"+randomHex(22)
		return
	}
	c["token"] = randomHex(32)
}

// normalise stores an empty list of APIs as none.
func normalise(c object) {
	if list, ok := c["allowed_api_ids"].([]any); ok && len(list) == 0 {
		c["allowed_api_ids"] = nil
	}
}

// summary is an application as a credential shows it.
func (f *AceData) summary(a object) object {
	s := object{}
	for _, name := range []string{"id", "service_id", "user_id", "type", "scope"} {
		s[name] = a[name]
	}
	s["service"] = nil
	if v := f.services[a.text("service_id")]; v != nil {
		s["service"] = v
	}
	return s
}

// unusable says, with the data plane's code, why a credential does not work.
func (f *AceData) unusable(c object) string {
	if f.clock.Now().Before(f.since[c.text("id")]) {
		return "401_invalid_token"
	}
	if at, err := time.Parse(time.RFC3339, c.text("expired_at")); err == nil && !f.clock.Now().Before(at) {
		return "401_token_expired"
	}
	if limit, ok := c["limited_amount"].(float64); ok && c["used_amount"].(float64) >= limit {
		return "403_used_up"
	}
	if a := find(f.applications, c["application_id"]); a != nil && a["disabled"] == true {
		return "403_disabled"
	}
	return ""
}

const (
	aceDataAPI = "/api/v1/"
	// ProbePath is a path of the fake alone: a GET with a credential's token
	// answers as the data plane would, 200 or a gateway error.
	ProbePath = "/_fake/whoami"
)

// aceDataRoute names the operation at a path. Collections and actions need
// their trailing slash; a resource takes either form.
func aceDataRoute(method, path string) (op, id string) {
	if path == ProbePath && method == http.MethodGet {
		return "probe", ""
	}
	rest, ok := strings.CutPrefix(path, aceDataAPI)
	if !ok {
		return "", ""
	}
	slash := strings.HasSuffix(rest, "/")
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	name := map[string]string{"credentials": "credential", "applications": "application", "platform-tokens": "platform_token"}[parts[0]]
	if name == "" {
		return "", ""
	}
	switch {
	case len(parts) == 1 && slash:
		verb := map[string]string{"GET": "list", "POST": "create"}[method]
		if verb == "" {
			verb = "not_allowed"
		}
		return name + "." + verb, ""
	case len(parts) == 1:
		return "", ""
	case len(parts) == 2 && parts[1] == "me" && name == "platform_token":
		if !slash {
			return "", ""
		}
		return join(name, map[string]string{"GET": "me"}[method]), ""
	case len(parts) == 2:
		verbs := map[string]string{"GET": "retrieve"}
		if name != "application" {
			verbs["DELETE"] = "delete"
		}
		if name == "credential" {
			verbs["PATCH"] = "update"
		}
		if verbs[method] == "" {
			return name + ".not_allowed", parts[1]
		}
		return name + "." + verbs[method], parts[1]
	case len(parts) == 3 && parts[2] == "rotate" && slash && name == "credential" && method == http.MethodPost:
		return "credential.rotate", parts[1]
	}
	return "", ""
}

// refuse answers with a golden error body and a trace id of its own.
func (f *AceData) refuse(status int, name string) (answer, bool) {
	body := template("acedata/error_" + name + ".json")
	body["trace_id"] = randomHex(32)
	return reply(status, body), false
}

// refuseMethod answers that a method is not allowed.
func (f *AceData) refuseMethod(r *Request) (answer, bool) {
	return reply(http.StatusMethodNotAllowed, object{
		"detail": `Method "` + r.Method + `" not allowed.`, "code": "method_not_allowed", "trace_id": randomHex(32),
	}), false
}

// refuseField answers that a field is wrong.
func (f *AceData) refuseField(field, message string) (answer, bool) {
	return reply(http.StatusBadRequest, object{
		"detail": object{field: []string{message}}, "code": "invalid", "trace_id": randomHex(32),
	}), false
}

func (f *AceData) handle(r *Request, id, token string) (answer, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Op == "probe" {
		return f.handleProbe(token)
	}
	var caller object
	for _, t := range f.tokens {
		if until, ok := t["expiration"].(float64); ok && f.clock.Now().Unix() >= int64(until) {
			continue
		}
		if token != "" && t.text("token") == token {
			caller = t
		}
	}
	if caller == nil || r.Scheme != "Bearer" {
		return f.refuse(http.StatusUnauthorized, "401_not_authenticated")
	}
	r.Auth = true
	caller["used_at"] = f.stamp()
	body, ok := decodeBody(r.Body)
	if !ok {
		return f.refuse(http.StatusBadRequest, "400_parse_error")
	}
	kind, verb, _ := strings.Cut(r.Op, ".")
	switch {
	case verb == "not_allowed":
		return f.refuseMethod(r)
	case kind == "credential":
		return f.handleCredential(r, verb, id, body, caller)
	case kind == "application":
		return f.handleApplication(r, verb, id, body, caller)
	case r.Op == "platform_token.me":
		return reply(http.StatusOK, f.user), false
	case kind == "platform_token":
		return f.handleToken(r, verb, id, body, caller)
	}
	return f.refuse(http.StatusNotFound, "404_not_found")
}

// handleProbe answers as the data plane does.
func (f *AceData) handleProbe(token string) (answer, bool) {
	gateway := func(name string) (answer, bool) {
		var status int
		for _, c := range name[:3] {
			status = status*10 + int(c-'0')
		}
		return reply(status, json.RawMessage(Fixture("acedata/gateway_error_"+name+".json"))), false
	}
	for _, c := range f.credentials {
		if token != "" && c.text("token") == token {
			if name := f.unusable(c); name != "" {
				return gateway(name)
			}
			return reply(http.StatusOK, object{"credential_id": c["id"]}), false
		}
	}
	if token == "" {
		return gateway("400_no_token")
	}
	return gateway("401_invalid_token")
}

// owned reports whether the caller may see an object.
func (f *AceData) owned(o, caller object) bool {
	return f.opts.superuser || o["user_id"] == caller["user_id"] || o["creator_id"] == caller["user_id"]
}

// get finds an object for the caller, or answers why not.
func (f *AceData) get(list []object, id string, caller object) (object, answer, bool) {
	o := find(list, strings.ToLower(id))
	if o == nil {
		a, _ := f.refuse(http.StatusNotFound, "404_not_found")
		return nil, a, false
	}
	if !f.owned(o, caller) {
		a, _ := f.refuse(http.StatusForbidden, "403_permission_denied")
		return nil, a, false
	}
	return o, answer{}, true
}

// list filters, sorts and slices; one foreign row on the page fails it all.
func (f *AceData) list(r *Request, all []object, caller object, show func(object) object, filters ...string) (answer, bool) {
	var rows []object
	for _, o := range all {
		if passes(o, r, filters) {
			rows = append(rows, o)
		}
	}
	if r.Query.Get("ordering") != "created_at" {
		slices.Reverse(rows) // newest first
	}
	most := 100
	if f.opts.maxLimit > 0 {
		most = f.opts.maxLimit
	}
	limit := number(r.Query, "limit", 10)
	if limit < 1 {
		limit = 10
	}
	limit = min(limit, most)
	offset := max(0, number(r.Query, "offset", 0))
	total := len(rows)
	rows = rows[min(offset, total):]
	rows = rows[:min(limit, len(rows))]
	shown := []object{}
	for _, o := range rows {
		if !f.owned(o, caller) {
			return f.refuse(http.StatusForbidden, "403_permission_denied")
		}
		shown = append(shown, show(o))
	}
	name := "items"
	if f.opts.results {
		name = "results"
	}
	return reply(http.StatusOK, object{"count": total, name: shown}), false
}

// passes reports whether an object has, for every filter that is given, one of
// its values.
func passes(o object, r *Request, filters []string) bool {
	for _, name := range filters {
		want := r.Query[name]
		if len(want) == 0 {
			continue
		}
		have := o.text(name)
		if b, ok := o[name].(bool); ok {
			have = map[bool]string{true: "true", false: "false"}[b]
		}
		if !slices.Contains(want, have) {
			return false
		}
	}
	return true
}

// showCredential returns a credential as it is sent. fresh says that its
// secret is new.
func (f *AceData) showCredential(c object, fresh bool) object {
	out := c.clone()
	if !f.opts.masked || fresh {
		return out
	}
	for _, name := range []string{"token", "password"} {
		if s := out.text(name); s != "" {
			out[name] = s[:4] + "…(32 chars)"
		}
	}
	return out
}

func (f *AceData) handleCredential(r *Request, verb, id string, body, caller object) (answer, bool) {
	switch verb {
	case "list":
		if f.opts.meRefused && slices.Contains(r.Query["user_id"], "me") {
			return f.refuseField("user_id", "Must be a valid UUID.")
		}
		return f.list(r, f.credentials, caller, func(c object) object { return f.showCredential(c, false) },
			"user_id", "application_id", "host", "name", "granted")
	case "create":
		return f.createCredential(body, caller)
	}
	c, refused, ok := f.get(f.credentials, id, caller)
	if !ok {
		return refused, false
	}
	switch verb {
	case "retrieve":
		return reply(http.StatusOK, f.showCredential(c, false)), false
	case "update":
		if field, message := f.checkFields(body); field != "" {
			return f.refuseField(field, message)
		}
		for _, name := range []string{"name", "limited_amount", "expired_at", "allowed_api_ids"} {
			if v, given := body[name]; given {
				c[name] = v
			}
		}
		normalise(c)
		c["updated_at"] = f.stamp()
		return reply(http.StatusOK, f.showCredential(c, false)), true
	case "rotate":
		switch f.opts.noRotate {
		case 0:
		case http.StatusMethodNotAllowed:
			return f.refuseMethod(r)
		default:
			return f.refuse(http.StatusNotFound, "404_not_found")
		}
		username := c["username"]
		f.renew(c)
		c["username"], c["updated_at"] = username, f.stamp()
		return reply(http.StatusOK, f.showCredential(c, true)), true
	case "delete":
		f.credentials = slices.DeleteFunc(f.credentials, func(o object) bool { return o["id"] == c["id"] })
		return answer{status: http.StatusNoContent, header: http.Header{}}, true
	}
	return f.refuse(http.StatusNotFound, "404_not_found")
}

func (f *AceData) createCredential(body, caller object) (answer, bool) {
	id := body.text("application_id")
	if id == "" {
		return f.refuseField("application_id", "This field is required.")
	}
	if f.opts.noNulls {
		for _, name := range []string{"limited_amount", "expired_at", "host"} {
			if v, given := body[name]; given && v == nil {
				return f.refuseField(name, "This field may not be null.")
			}
		}
	}
	application := find(f.applications, id)
	if application == nil || application["user_id"] != caller["user_id"] {
		return f.refuse(http.StatusNotFound, "404_not_found")
	}
	if field, message := f.checkFields(body); field != "" {
		return f.refuseField(field, message)
	}
	taken := slices.ContainsFunc(f.credentials, func(c object) bool { return c["application_id"] == application["id"] })
	if f.isProxy(application) && taken {
		return f.refuse(http.StatusBadRequest, "400_proxy_single_credential")
	}
	return reply(http.StatusCreated, f.showCredential(f.newCredential(application, body), true)), true
}

// checkFields names a field of a create or update that is wrong.
func (f *AceData) checkFields(body object) (field, message string) {
	if v := body["limited_amount"]; v != nil {
		if _, ok := v.(float64); !ok {
			return "limited_amount", "A valid number is required."
		}
	}
	if v := body["expired_at"]; v != nil {
		s, _ := v.(string)
		if _, err := time.Parse(time.RFC3339, s); err != nil {
			return "expired_at", "Datetime has wrong format."
		}
	}
	list, _ := body["allowed_api_ids"].([]any)
	for _, v := range list {
		if s, _ := v.(string); !slices.Contains(apiIDs[:], s) {
			return "allowed_api_ids", "Unknown API id."
		}
	}
	return "", ""
}

func (f *AceData) handleApplication(r *Request, verb, id string, body, caller object) (answer, bool) {
	show := func(a object) object {
		o := a.clone()
		o["service"] = f.summary(a)["service"]
		embedded := []object{}
		for _, c := range f.credentials {
			if c["application_id"] == a["id"] {
				s := object{}
				for _, name := range []string{"id", "name", "token", "type", "host", "limited_amount", "used_amount", "expired_at"} {
					s[name] = f.showCredential(c, false)[name]
				}
				embedded = append(embedded, s)
			}
		}
		o["credentials"], o["role"] = embedded, "owner"
		return o
	}
	switch verb {
	case "list":
		for i, v := range r.Query["user_id"] {
			if v == "me" {
				r.Query["user_id"][i] = caller.text("user_id")
			}
		}
		if a := r.Query["affiliation"]; len(a) > 0 && !slices.Contains(a, "owner") {
			r.Query["user_id"] = []string{"nobody"} // nothing was granted to the user
		}
		return f.list(r, f.applications, caller, show, "user_id", "service_id", "scope", "type")
	case "create":
		service, kind, scope := body.text("service_id"), body.text("type"), body.text("scope")
		if kind == "" {
			kind = "Usage"
		}
		if scope == "" {
			scope = "Individual"
		}
		switch {
		case scope == "Global":
			service = ""
		case service == "":
			return f.refuse(http.StatusBadRequest, "400_invalid_string")
		case f.verify[service]:
			return f.refuse(http.StatusForbidden, "403_need_verify")
		case f.services[service] == nil:
			return f.refuse(http.StatusNotFound, "404_service_not_found")
		}
		for _, a := range f.applications {
			if a["user_id"] == caller["user_id"] && a.text("service_id") == service && a["type"] == kind && a["scope"] == scope {
				return f.refuse(http.StatusBadRequest, "400_duplication")
			}
		}
		return reply(http.StatusCreated, f.newApplication(service, kind, scope, caller.text("user_id"))), true
	}
	a, refused, ok := f.get(f.applications, id, caller)
	if !ok {
		return refused, false
	}
	return reply(http.StatusOK, show(a)), false
}

func (f *AceData) handleToken(r *Request, verb, id string, body, caller object) (answer, bool) {
	show := func(t object) object {
		o := t.clone()
		if f.opts.masked {
			o["token"] = "platform-v1-…"
		}
		return o
	}
	switch verb {
	case "list":
		var tokens []object
		for _, t := range f.tokens {
			tags, _ := t["tags"].([]any)
			if tag := r.Query.Get("tag"); tag == "" || slices.Contains(tags, any(tag)) {
				tokens = append(tokens, t)
			}
		}
		return f.list(r, tokens, caller, show, "user_id")
	case "create":
		owner := caller.text("user_id")
		if other := body.text("user_id"); other != "" && f.opts.superuser {
			owner = other
		}
		return reply(http.StatusCreated, f.newToken(owner, body)), true
	}
	t, refused, ok := f.get(f.tokens, id, caller)
	if !ok {
		return refused, false
	}
	if verb == "delete" {
		f.tokens = slices.DeleteFunc(f.tokens, func(o object) bool { return o["id"] == t["id"] })
		return answer{status: http.StatusNoContent, header: http.Header{}}, true
	}
	return reply(http.StatusOK, show(t)), false
}
