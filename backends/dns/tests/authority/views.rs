//! What is registered somewhere is found by name.

use std::{collections::BTreeSet, time::Duration};

use discovery::{Discovery, Instance, InstanceId, Registration, Scope, layer::Fault, mem::Mem};
use discovery_dns::{Authority, ZoneConfig};
use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::{
    ZONE,
    client::{ask, query},
    dig, has_programs, local, until,
};

async fn register(discovery: &Discovery, service: &str, id: &str, last: u8) -> Registration {
    let instance = Instance::builder(service.parse().unwrap())
        .id(id.parse::<InstanceId>().unwrap())
        .endpoint("http", &format!("10.0.0.{last}"), 8080)
        .metadata("version", "1.4");
    discovery.register(instance.build().unwrap()).await.unwrap()
}

async fn view(discovery: &Discovery) -> Authority {
    let zone = ZoneConfig::view(ZONE, discovery, Scope::everything()).serial(1);
    local().zone(zone).start().await.unwrap()
}

async fn addresses(authority: &Authority, name: &str) -> BTreeSet<String> {
    let answer = ask(authority.address(), &query(name, RecordType::A)).await;
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn an_instance_is_found_in_every_way() {
    let discovery = Discovery::new(Mem::new());
    let authority = view(&discovery).await;
    let registration = register(&discovery, "eu1/prod/cart", "1f", 7).await;
    let _other = register(&discovery, "eu1/prod/cart", "2f", 8).await;
    let both = || async { addresses(&authority, "cart.prod.eu1.disco.test.").await.len() == 2 };
    until("both are there", both).await;
    for name in
        ["1f.cart.prod.eu1.disco.test.", "prod-cart-1f.eu1.disco.test.", "prod_cart_1f.eu1.disco.test."]
    {
        assert_eq!(addresses(&authority, name).await, ["10.0.0.7".to_owned()].into(), "{name}");
    }
    assert_eq!(addresses(&authority, "tasks.cart.prod.eu1.disco.test.").await.len(), 2);
    if has_programs() {
        let dig = dig(&authority);
        let mut services = dig.short("_http._tcp.cart.prod.eu1.disco.test", "SRV").await.unwrap();
        services.sort();
        let expected = ["1f", "2f"].map(|id| format!("0 1 8080 {id}.cart.prod.eu1.disco.test."));
        assert_eq!(services, expected);
        let text = dig.short("1f._http._tcp.cart.prod.eu1.disco.test", "TXT").await.unwrap();
        assert_eq!(text, ["\"version=1.4\""]);
        let browse = dig.short("b._dns-sd._udp.disco.test", "PTR").await.unwrap();
        assert_eq!(browse, ["cart.prod.eu1.disco.test."]);
        assert_eq!(dig.transfer(ZONE).await.unwrap().len(), 3 + 2 * 6 + 2);
    }
    registration.deregister().await.unwrap();
    let one = || async {
        addresses(&authority, "cart.prod.eu1.disco.test.").await == ["10.0.0.8".to_owned()].into()
    };
    until("one is left", one).await;
    let gone = ask(authority.address(), &query("1f.cart.prod.eu1.disco.test.", RecordType::A)).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn what_is_shown_is_not_updated() {
    let discovery = Discovery::new(Mem::new());
    let authority = view(&discovery).await;
    let update = crate::client::update("disco.test.", "a.disco.test.", [10, 0, 0, 1]);
    assert_eq!(ask(authority.address(), &update).await.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn while_the_backend_is_away_old_answers_are_short_lived_and_then_none() {
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(fault.clone());
    fault.partition();
    let zone = ZoneConfig::view(ZONE, &discovery, Scope::everything())
        .stale(Duration::from_secs(2), Some(Duration::from_millis(700)));
    let authority = local().zone(zone).start().await.unwrap();
    let soa = async || ask(authority.address(), &query("disco.test.", RecordType::SOA)).await;
    assert_eq!(soa().await.metadata.response_code, ResponseCode::ServFail, "nothing is known yet");

    fault.heal();
    let is_live = || async { soa().await.answers.first().is_some_and(|record| record.ttl == 5) };
    until("the zone is known", is_live).await;
    fault.partition();
    fault.cut();
    until("the zone is stale", || async {
        soa().await.answers.first().is_some_and(|record| record.ttl == 2)
    })
    .await;
    until("the zone is expired", || async { soa().await.metadata.response_code == ResponseCode::ServFail })
        .await;
    fault.heal();
    until("the zone is known again", is_live).await;
}
