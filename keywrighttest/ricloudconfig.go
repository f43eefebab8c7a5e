package keywrighttest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// handleConfig answers requests about storage and webhook configs.
func (f *Ricloud) handleConfig(r *Request, list *[]object, kind, verb, id string, body object, caller *ricloudKey) (answer, bool) {
	path := "/configs/" + kind
	switch verb {
	case "list":
		var out []object
		for _, o := range slices.Backward(*list) {
			out = append(out, f.showConfig(o, kind, false))
		}
		return f.page(r, out, path)
	case "create":
		o := template("ricloud/" + map[string]string{"storage": "storage_config_s3", "webhook": "webhook_config_new"}[kind] + ".json")
		if kind == "storage" {
			o["signed_urls_enabled"], o["signed_urls_expiry"] = false, nil // unless the request says otherwise
		}
		if a, bad := f.updateConfig(o, kind, body, true); bad {
			return a, false
		}
		o["id"] = f.id(kind)
		if kind == "webhook" {
			o["secret"] = "whsec-" + randomHex(32)
		}
		o["state"], o["date_created"] = "new", f.stamp()
		*list = append(*list, o)
		shown := f.showConfig(o, kind, true)
		f.test(o, kind, caller)
		return reply(http.StatusCreated, shown), true
	}
	n, err := strconv.ParseInt(id, 10, 64)
	o := find(*list, n)
	if err != nil || o == nil {
		return f.refuse("not_found")
	}
	switch verb {
	case "retrieve":
		return reply(http.StatusOK, f.showConfig(o, kind, false)), false
	case "update":
		next := o.clone() // refused as a whole, or taken as a whole
		if a, bad := f.updateConfig(next, kind, body, false); bad {
			return a, false
		}
		maps.Copy(o, next)
		o["state"] = "new"
		shown := f.showConfig(o, kind, false)
		f.test(o, kind, caller)
		return reply(http.StatusOK, shown), true
	case "delete":
		*list = slices.DeleteFunc(*list, func(c object) bool { return c["id"] == o["id"] })
		for _, k := range f.keys {
			if k.fields[kind+"_config"] == o["id"] {
				k.fields[kind+"_config"] = nil
			}
		}
		if f.organisation[kind+"_config_default"] == o["id"] {
			f.organisation[kind+"_config_default"] = nil
		}
		if f.opts.deleteEmpty {
			return answer{status: http.StatusNoContent, header: http.Header{}}, true
		}
		return reply(http.StatusOK, f.showConfig(o, kind, false)), true
	case "test":
		task, done := f.test(o, kind, caller)
		if seconds, err := strconv.Atoi(r.Header.Get("Ricloud-Await")); err == nil && seconds > 0 {
			f.mu.Unlock()
			select {
			case <-done:
			case <-time.After(time.Duration(min(seconds, 10)) * time.Second):
			}
			f.mu.Lock()
		}
		return reply(http.StatusCreated, f.showTask(task)), true
	}
	return f.refuse("not_found")
}

// updateConfig sets the fields of a config that a request gives.
func (f *Ricloud) updateConfig(o object, kind string, body object, create bool) (answer, bool) {
	refuse := func(field, message string) (answer, bool) {
		a, _ := f.refuseField(field, message)
		return a, true
	}
	if raw, given := body["url"]; given || create {
		text, _ := raw.(string)
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" || u.Host == "" {
			return refuse("url", "must be a URL")
		}
		if kind == "storage" {
			if u.Scheme != "gs" && u.Scheme != "s3" {
				return refuse("url", "must begin with gs:// or s3://")
			}
			o["type"] = u.Scheme
		}
		o["url"] = text
	}
	if kind == "webhook" {
		return answer{}, false
	}
	if c, given := body["credentials"]; given || create {
		if _, ok := c.(map[string]any); !ok {
			return refuse("credentials", "must be an object")
		}
		o["credentials"] = c
	}
	for _, field := range []string{"signed_urls_enabled", "signed_urls_expiry"} {
		if v, given := body[field]; given {
			o[field] = v
		}
	}
	return answer{}, false
}

// showConfig returns a config as it is sent. fresh says that its secret is new.
func (f *Ricloud) showConfig(o object, kind string, fresh bool) object {
	c := o.clone()
	if f.opts.masked && !fresh {
		switch kind {
		case "webhook":
			c["secret"] = "****"
		case "storage":
			c["credentials"] = nil
		}
	}
	if f.opts.older {
		delete(c, "signed_urls_enabled")
		delete(c, "signed_urls_expiry")
	}
	return f.ids(c)
}

// test starts the test of a config and returns its task, and a channel that is
// closed when it is over. The caller holds mu.
func (f *Ricloud) test(config object, kind string, caller *ricloudKey) (object, <-chan struct{}) {
	task := template("ricloud/task_webhook_config_test_pending.json")
	task["id"], task["type"] = newUUID(), kind+"_config.test"
	task["key"], task["date_created"] = caller.fields["id"], f.stamp()
	f.tasks = append(f.tasks, task)
	f.emit("task", "created", task.clone())
	snapshot := config.clone()
	done := make(chan struct{})
	f.work.Go(func() {
		defer close(done)
		f.mu.Lock()
		task["state"], task["date_started"] = "processing", f.stamp()
		f.mu.Unlock()
		if !wait(f.ctx, f.opts.testDelay) && f.ctx.Err() != nil {
			return // the fake was closed
		}
		code := f.runTest(snapshot, kind)
		f.mu.Lock()
		defer f.mu.Unlock()
		task["date_completed"] = f.stamp()
		if code == "" {
			task["state"], config["state"] = "succeeded", "valid"
		} else {
			task["state"], task["error"], config["state"] = "failed", code, "invalid"
		}
		f.settleOrganisation()
		f.emit("task", task.text("state"), task.clone())
	})
	return task, done
}

// settleOrganisation makes the organisation active once it is configured.
func (f *Ricloud) settleOrganisation() {
	valid := func(list []object) bool {
		return slices.ContainsFunc(list, func(o object) bool { return o["state"] == "valid" })
	}
	if valid(f.storage) && (!f.opts.requireWebhooks || valid(f.webhooks)) {
		f.organisation["state"] = "active"
	}
}

// runTest tests a config and returns an error code, "" for success.
func (f *Ricloud) runTest(config object, kind string) string {
	if f.opts.testResult != nil {
		return f.opts.testResult(config)
	}
	if kind == "webhook" {
		return f.testWebhook(config)
	}
	credentials, _ := config["credentials"].(map[string]any)
	need := []string{"private_key", "client_email"}
	if config["type"] == "s3" {
		need = []string{"access_key_id", "secret_access_key"}
	}
	for _, field := range need {
		if s, _ := credentials[field].(string); s == "" {
			return "invalid-credentials"
		}
	}
	return ""
}
