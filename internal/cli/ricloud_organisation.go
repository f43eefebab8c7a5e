package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

func (a *app) organisationGroup() *cobra.Command {
	return group("organisation", "Show and change the organisation", a.organisationGet(), a.organisationUpdate())
}

func (a *app) organisationGet() *cobra.Command {
	return &cobra.Command{
		Use: "get", Short: "Show the organisation that the token in use belongs to",
		Example: "keywright ricloud organisation get --output json",
		RunE: onRicloud(a, func(_ *cobra.Command, rc *keywright.Ricloud) error {
			return a.print(rc.Organisation.Retrieve(a.ctx))
		}),
	}
}

func (a *app) organisationUpdate() *cobra.Command {
	var p keywright.OrganisationUpdateParams
	c := &cobra.Command{
		Use: "update", Short: "Change the organisation's name and defaults",
		Example: "keywright ricloud organisation update --storage-config-default 3\n" +
			"keywright ricloud organisation update --null webhook-config-default",
	}
	ps := newParams(c)
	param(ps, &p.Name, "name", "text", "the organisation's display `NAME`", false, parseText)
	param(ps, &p.StorageConfigDefault, "storage-config-default", "id", "store results of keys without their own config as the one with this `ID` says", true, parseID[keywright.StorageConfigID])
	param(ps, &p.WebhookConfigDefault, "webhook-config-default", "id", "send events of keys without their own config as the one with this `ID` says", true, parseID[keywright.WebhookConfigID])
	param(ps, &p.Config, "publish-source-files", "bool", "whether source files are published: `true|false`; newer versions of the API only", true, parsePublish)
	ps.defineNull("have no `FIELD`")
	c.RunE = func(*cobra.Command, []string) error {
		if err := ps.apply(); err != nil {
			return err
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		return a.print(change(a, "keywright ricloud organisation get", func(ctx context.Context) (*keywright.Organisation, error) {
			return rc.Organisation.Update(ctx, p)
		}))
	}
	return c
}
