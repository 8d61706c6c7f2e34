//! ClusterService.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use varve_broker_api::Broker;
use varve_proto::v1;
use varve_proto::v1::cluster_service_server::ClusterService;

use crate::shared::Shared;
use crate::streams::{Outbound, watch};
use crate::translate::cluster::{to_health, to_server_info};

/// The service.
#[derive(Debug)]
pub struct Cluster<B>(pub Arc<Shared<B>>);

#[tonic::async_trait]
impl<B: Broker> ClusterService for Cluster<B> {
    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        self.0.context(&request)?;
        Ok(Response::new(to_server_info(&self.0.broker.node())))
    }

    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let v1::GetMetadataRequest { topics, all_topics } = request.into_inner();
        let fail = |error| self.0.fail(&error);
        let wanted = watch::Wanted::new(&topics, all_topics).map_err(fail)?;
        let table = watch::Table::newest(&self.0, &ctx, &wanted).await;
        let table = table.map_err(fail)?;
        Ok(Response::new(v1::GetMetadataResponse {
            cluster_id: self.0.broker.node().cluster.to_string(),
            metadata_version: table.version,
            controller_node_id: table.controller,
            nodes: table.nodes,
            topics: table.topics,
        }))
    }

    type WatchMetadataStream = Outbound<v1::WatchMetadataResponse>;

    async fn watch_metadata(
        &self,
        request: Request<v1::WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        let ctx = self.0.context(&request)?.without_deadline();
        let v1::WatchMetadataRequest { topics, all_topics } = request.into_inner();
        let opened = watch::Wanted::new(&topics, all_topics)
            .and_then(|wanted| watch::open(&self.0, ctx, wanted));
        opened.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn get_cluster_health(
        &self,
        request: Request<v1::GetClusterHealthRequest>,
    ) -> Result<Response<v1::GetClusterHealthResponse>, Status> {
        self.0.context(&request)?;
        Ok(Response::new(to_health(&self.0.broker.health())))
    }
}
